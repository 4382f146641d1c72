"""What LoadGen wrote into `mlperf_log_summary.txt`, as figures."""

import re
from pathlib import Path

from msgspec import Struct

FILE = "mlperf_log_summary.txt"
_LINE = re.compile(r"^\s*(?P<key>[^:]+?)\s*:\s*(?P<value>.+?)\s*$")
_PERCENTILE = re.compile(r"^(\d+\.\d+) percentile latency \(ns\)$")
_CHECK = re.compile(r"^(.+) satisfied$")
_PER_MILLISECOND = 1e6  # LoadGen's times are in nanoseconds


class Summary(Struct, frozen=True):
    """LoadGen's own verdict and figures. Latencies are in ms, and count from the moment when a query was due.

    Attributes:
        scenario: as LoadGen calls it.
        valid: whether LoadGen wrote VALID.
        checks: what it looked at, and whether each was satisfied.
        rate: queries per second: completed (Server), with LoadGen's own time between them (SingleStream), or
            samples per second (Offline).
        percentiles: by their number, such as `99.00`.
        minimum, mean, maximum: of the latencies.
        advice: LoadGen's recommendations, line by line, and what it says of early stopping.
        text: the whole file.
    """

    scenario: str
    valid: bool
    checks: dict[str, bool]
    rate: float
    percentiles: dict[str, float]
    minimum: float
    mean: float
    maximum: float
    advice: list[str]
    text: str

    @property
    def p99(self) -> float:
        """The latency that 99 % of the queries did not exceed, in ms."""
        return self.percentiles["99.00"]


def read_summary(path: Path) -> Summary:
    """Read a summary.

    Raises:
        ValueError: it is not one, or LoadGen did not get as far as a verdict.
    """
    text = path.read_text(encoding="utf-8")
    found = {m["key"]: m["value"] for m in map(_LINE.match, text.splitlines()) if m}
    try:
        return Summary(
            scenario=found["Scenario"],
            valid=found["Result is"] == "VALID",
            checks={m[1]: value == "Yes" for key, value in found.items() if (m := _CHECK.match(key))},
            rate=float(next(found[key] for key in _RATES if key in found)),
            percentiles={
                m[1]: int(value) / _PER_MILLISECOND for key, value in found.items() if (m := _PERCENTILE.match(key))
            },
            minimum=int(found["Min latency (ns)"]) / _PER_MILLISECOND,
            mean=int(found["Mean latency (ns)"]) / _PER_MILLISECOND,
            maximum=int(found["Max latency (ns)"]) / _PER_MILLISECOND,
            advice=[line.removeprefix(" * ") for line in text.splitlines() if line.startswith(" * ")],
            text=text,
        )
    except (KeyError, StopIteration, ValueError) as error:
        raise ValueError(f"{path} is not a whole summary of LoadGen's: {error!r}") from error


_RATES = ("Completed samples per second", "Samples per second", "QPS w/ loadgen overhead")
