"""Whether the service stayed well: no error, memory flat after two minutes, the last minute as quick as the third."""

from collections.abc import Mapping, Sequence
from statistics import mean

from msgspec import Struct

from loadtests.percentiles import percentile
from loadtests.soak.load import Answered
from loadtests.soak.watch import Record

MEMORY = 0.02  # share by which a later minute's resident memory may exceed the third's
LATENCY = 0.20  # share by which the p99 of the last minute may differ from the third's
_UNKNOWN = "memory unknown: give --pid on the server's machine, or --metrics-url where its /metrics can be asked"
MINUTES = 4  # that a soak needs at least for these two


class Finding(Struct, frozen=True):
    """One goal: what was found, and whether that is good; None where it cannot be judged."""

    goal: str
    found: str
    good: bool | None

    def __str__(self) -> str:
        word = {True: "met", False: "MISSED", None: "not judged"}[self.good]
        return f"{self.goal}: {self.found} ({word})"


def judge(
    records: Sequence[Record], answered: Sequence[Answered], errors: Mapping[str, int], minute: float = 60.0
) -> list[Finding]:
    """Judge a soak. `minute` is how many seconds make one."""
    return [_errors(answered, errors), _memory(records, minute), _latency(answered, minute)]


def _errors(answered: Sequence[Answered], errors: Mapping[str, int]) -> Finding:
    total = sum(errors.values())
    told = ", ".join(f"{count} x {what}" for what, count in sorted(errors.items(), key=lambda item: -item[1])[:5])
    found = f"{total} errors beside {len(answered)} right answers" + (f": {told}" if told else "")
    return Finding("no error", found, total == 0 and len(answered) > 0)


def _memory(records: Sequence[Record], minute: float) -> Finding:
    goal = f"resident memory flat after two minutes (< {MEMORY:.0%})"
    by_minute: dict[int, list[float]] = {}
    for record in records:
        if record.resident_mb is not None:
            by_minute.setdefault(int((record.end - 1e-6) // minute), []).append(record.resident_mb)
    means = {number: mean(values) for number, values in by_minute.items()}
    later = {number: value for number, value in means.items() if number >= MINUTES - 1}
    if not later or 2 not in means:
        return Finding(goal, _UNKNOWN if not means else f"shorter than {MINUTES} minutes", None)
    third, (worst, most) = means[2], max(later.items(), key=lambda item: item[1])
    rise = most / third - 1
    return Finding(goal, f"{third:.1f} MB in minute 3, {rise:+.2%} in minute {worst + 1}", rise < MEMORY)


def _latency(answered: Sequence[Answered], minute: float) -> Finding:
    goal = f"p99 of the last minute within {LATENCY:.0%} of the third's"
    length = max((a.at for a in answered), default=0.0)
    if length < (MINUTES - 0.1) * minute:
        return Finding(goal, f"shorter than {MINUTES} minutes", None)
    third = percentile([1000 * a.latency for a in answered if 2 * minute <= a.at < 3 * minute], 99)
    last = percentile([1000 * a.latency for a in answered if a.at >= length - minute], 99)
    if third is None or last is None:
        return Finding(goal, "a minute without answers", False)
    change = last / third - 1
    return Finding(goal, f"{third:.1f} ms, then {last:.1f} ms ({change:+.1%})", abs(change) <= LATENCY)
