"""From samples to figures: percentiles of one load, whether its windows agree, medians over rounds.

Called by everything that reports a load.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import TypeVar

from msgspec import Struct

from loadtests.client import Load, Sample
from loadtests.percentiles import percentile
from loadtests.report import Measurement, Window

T = TypeVar("T")
WINDOWS = 3  # consecutive ones that must agree
STABILITY = 0.05  # share by which each of them may differ from their mean
# Answers that a window needs before its p99 is judged, too: of fewer, the hundredth that lies above it are so few that
# chance alone moves it by more than STABILITY.
P99_NEEDS = 10_000


class Summary(Struct, frozen=True):
    """One load in figures. Latencies are in milliseconds, and of the successful answers (200) alone.

    Attributes:
        requests: how many were due.
        succeeded: how many were answered with 200.
        rate: successful answers per second.
        p50, p90, p99, mean, worst: None where nothing was answered.
        statuses: how many answers came with each status.
        failures: how many requests got no answer, by reason.
        late_p99: how late the client itself was in sending, in an open loop: a sign that it was short of time.
    """

    requests: int
    succeeded: int
    rate: float
    p50: float | None
    p90: float | None
    p99: float | None
    mean: float | None
    worst: float | None
    statuses: dict[str, int]
    failures: dict[str, int]
    late_p99: float

    @property
    def errors(self) -> int:
        """How many requests were not answered with 200."""
        return self.requests - self.succeeded


def elapsed(load: Load) -> float:
    """Seconds that a load's answers took: the time during which requests were sent, or until the last success."""
    return max(load.window, max((s.start + s.latency for s in load.samples if s.status == 200), default=0.0))


def summarise(load: Load) -> Summary:
    """Turn a load into figures."""
    samples = load.samples
    latencies = milliseconds(s for s in samples if s.status == 200)
    seconds = elapsed(load)
    return Summary(
        requests=len(samples),
        succeeded=len(latencies),
        rate=len(latencies) / seconds if seconds else 0.0,
        p50=percentile(latencies, 50),
        p90=percentile(latencies, 90),
        p99=percentile(latencies, 99),
        mean=sum(latencies) / len(latencies) if latencies else None,
        worst=max(latencies, default=None),
        statuses=dict(Counter(str(s.status) for s in samples if s.status)),
        failures=dict(Counter(s.failure for s in samples if s.failure)),
        late_p99=percentile([1000 * s.late for s in samples], 99) or 0.0,
    )


def window(load: Load) -> Window:
    """Turn a load into one window's figures."""
    found = summarise(load)
    return Window(elapsed(load), found.requests, found.errors, found.rate, found.p50, found.p90, found.p99)


def measurement(
    name: str,
    loads: Sequence[Load],
    *,
    clients: int | None = None,
    offered_per_s: float | None = None,
    stability: float | None = None,
) -> Measurement:
    """Turn loads that followed each other, a window each, into one measurement over all of them.

    Args:
        name: what it is called.
        loads: at least one.
        clients: of a closed loop.
        offered_per_s: of an open loop.
        stability: judges whether the windows agree; None leaves that open.
    """
    whole = summarise(Load([sample for load in loads for sample in load.samples], 0.0))
    seconds = sum(elapsed(load) for load in loads)
    windows = [window(load) for load in loads]
    return Measurement(
        name=name,
        clients=clients,
        offered_per_s=offered_per_s,
        seconds=seconds,
        requests=whole.requests,
        errors=whole.errors,
        rate_per_s=whole.succeeded / seconds if seconds else 0.0,
        p50_ms=whole.p50,
        p90_ms=whole.p90,
        p99_ms=whole.p99,
        mean_ms=whole.mean,
        max_ms=whole.worst,
        late_p99_ms=whole.late_p99,
        stable=None if stability is None else stable(windows, stability, opened=offered_per_s is not None),
        windows=windows,
        statuses=whole.statuses,
        failures=whole.failures,
    )


def medians(
    name: str, rounds: Sequence[Summary], *, clients: int | None = None, offered_per_s: float | None = None
) -> Measurement:
    """Turn the rounds of a tool that goes by turns into one measurement: medians, and a window for each round.

    Three rounds or more are judged as `stable` judges windows.
    """
    windows = [
        Window(
            one.succeeded / one.rate if one.rate else 0.0, one.requests, one.errors, one.rate, one.p50, one.p90, one.p99
        )
        for one in rounds
    ]
    return Measurement(
        name=name,
        clients=clients,
        offered_per_s=offered_per_s,
        seconds=sum(one.seconds for one in windows),
        requests=sum(one.requests for one in rounds),
        errors=sum(one.errors for one in rounds),
        rate_per_s=median_of(rounds, lambda one: one.rate) or 0.0,
        p50_ms=median_of(rounds, lambda one: one.p50),
        p90_ms=median_of(rounds, lambda one: one.p90),
        p99_ms=median_of(rounds, lambda one: one.p99),
        mean_ms=median_of(rounds, lambda one: one.mean),
        max_ms=max((one.worst for one in rounds if one.worst is not None), default=None),
        late_p99_ms=median_of(rounds, lambda one: one.late_p99),
        stable=stable(windows, opened=offered_per_s is not None) if len(windows) >= WINDOWS else None,
        windows=windows,
        statuses=dict(sum((Counter(one.statuses) for one in rounds), Counter())),
        failures=dict(sum((Counter(one.failures) for one in rounds), Counter())),
    )


def stable(windows: Sequence[Window], within: float = STABILITY, *, opened: bool = False) -> bool:
    """Say whether the last three windows agree: in rate and p50, and in p99 where there are answers enough for one.

    perf_analyzer does the same: each figure may differ from the mean of the three by `within`. A window in which
    nothing was answered agrees with none. In an open loop (`opened`), where chance makes the rate, the share of the
    requests that were answered takes its place.
    """
    last = windows[-WINDOWS:]
    if len(last) < WINDOWS:
        return False
    return all(spread(figures) <= within for figures in _judged(last, opened).values())


def instability(windows: Sequence[Window], *, opened: bool = False) -> str:
    """Say how far the last three windows are apart, figure by figure, such as `p50 ±3.0 %, rate ±12.1 %`."""
    last = windows[-WINDOWS:]
    if len(last) < WINDOWS:
        return f"{len(last)} of {WINDOWS} windows"
    if any(w.p50_ms is None for w in last):
        return "a window without answers"
    return ", ".join(f"{name} ±{100 * spread(figures):.1f} %" for name, figures in _judged(last, opened).items())


def spread(values: Sequence[float | None]) -> float:
    """Return how far the farthest value is from the mean, as a share of that; infinite where one is missing or 0."""
    known = [value for value in values if value]
    if len(known) < len(values) or not known:
        return math.inf
    mean = sum(known) / len(known)
    return max(abs(value / mean - 1) for value in known)


def _judged(windows: Sequence[Window], opened: bool) -> dict[str, list[float | None]]:
    figures: dict[str, list[float | None]] = {"p50": [w.p50_ms for w in windows]}
    if opened:
        figures["answered"] = [w.answered for w in windows]
    else:
        figures["rate"] = [w.rate_per_s for w in windows]
    if all(w.requests - w.errors >= P99_NEEDS for w in windows):
        figures["p99"] = [w.p99_ms for w in windows]
    return figures


def milliseconds(samples: Iterable[Sample]) -> list[float]:
    """Return the latencies of samples, in milliseconds."""
    return [1000 * s.latency for s in samples]


def clients_name(count: int) -> str:
    """Return `1 client`, `8 clients`: what a closed loop is called, the same in every run."""
    return f"{count} client{'' if count == 1 else 's'}"


def median_of(rounds: Iterable[T], figure: Callable[[T], float | None]) -> float | None:
    """Return the median of one figure over rounds, leaving out the rounds that lack it; None where all do."""
    figures = [value for value in map(figure, rounds) if value is not None]
    return median(figures) if figures else None
