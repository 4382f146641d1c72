"""What LoadGen wrote into `mlperf_log_summary.txt`, as figures."""

import re
from pathlib import Path

from msgspec import Struct

FILE = "mlperf_log_summary.txt"
_LINE = re.compile(r"^\s*(?P<key>[^:]+?)\s*:\s*(?P<value>.+?)\s*$")
_PERCENTILE = re.compile(r"^(\d+\.\d+) percentile latency \(ns\)$")
_PROCESSED = re.compile(r"[Pp]rocessed (\d+) queries")
_MORE = re.compile(r"run at least (\d+) more queries")
_AT_LEAST = re.compile(r"Need to process at least (\d+) queries")
_CHECK = re.compile(r"^(.+) satisfied$")
_PER_MILLISECOND = 1e6  # LoadGen's times are in nanoseconds


class Summary(Struct, frozen=True):
    """LoadGen's own verdict and figures. Latencies are in ms, and count from the moment when a query was due.

    Attributes:
        scenario: as LoadGen calls it.
        valid: whether LoadGen wrote VALID.
        checks: what it looked at, and whether each was satisfied.
        rate: images per second: completed (Server), with LoadGen's own time between them (SingleStream), all of them
            (Offline), or those of a query in its mean latency (MultiStream).
        percentiles: by their number, such as `99.00`.
        minimum, mean, maximum: of the latencies.
        advice: LoadGen's recommendations, sentence by sentence, and what it says of early stopping.
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

    @property
    def processed(self) -> int:
        """How many queries LoadGen counted; 0 where it does not say."""
        return _number(self.advice, _PROCESSED)

    @property
    def more_needed(self) -> int:
        """How many more queries early stopping asks for, at least; 0 where it asks for none."""
        at_least = _number(self.advice, _AT_LEAST)
        return _number(self.advice, _MORE) or max(0, at_least - self.processed)


def _number(sentences: list[str], pattern: re.Pattern[str]) -> int:
    return next((int(match[1]) for sentence in sentences if (match := pattern.search(sentence))), 0)


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
            rate=_rate(found),
            percentiles={
                m[1]: int(value) / _PER_MILLISECOND for key, value in found.items() if (m := _PERCENTILE.match(key))
            },
            minimum=int(found["Min latency (ns)"]) / _PER_MILLISECOND,
            mean=int(found["Mean latency (ns)"]) / _PER_MILLISECOND,
            maximum=int(found["Max latency (ns)"]) / _PER_MILLISECOND,
            advice=_advice(text),
            text=text,
        )
    except (KeyError, ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{path} is not a whole summary of LoadGen's: {error!r}") from error


def _rate(found: dict[str, str]) -> float:
    if key := next((key for key in _RATES if key in found), None):
        return float(found[key])
    return int(found["samples_per_query"]) / int(found["Mean latency (ns)"]) * 1e9


def _advice(text: str) -> list[str]:
    """LoadGen's sentences, of which each begins with ` * ` and may go on in lines that begin with a blank."""
    sentences: list[str] = []
    inside = False
    for line in text.partition("Additional Stats")[0].splitlines():
        if line.startswith(" * "):
            sentences.append(line.removeprefix(" * ").strip())
        elif inside and line.startswith(" "):
            sentences[-1] += f" {line.strip()}"
        inside = line.startswith(" ") and bool(sentences)
    return sentences


_RATES = ("Completed samples per second", "Samples per second", "QPS w/ loadgen overhead")
