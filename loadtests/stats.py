"""From samples to figures: percentiles of one load, medians over rounds. Called by everything that reports a load."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import TypeVar

import numpy as np
from msgspec import Struct

from loadtests.client import Load, Sample

T = TypeVar("T")


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


def percentile(values: Sequence[float], q: float) -> float | None:
    """Return the smallest value that `q` percent of the values do not exceed (nearest rank); None of no values.

    Raises:
        ValueError: `q` is not in 0..100.
    """
    if not 0 <= q <= 100:
        raise ValueError(f"percentile {q}: expected 0 to 100")
    return float(np.percentile(values, q, method="inverted_cdf")) if len(values) else None


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


def milliseconds(samples: Iterable[Sample]) -> list[float]:
    """Return the latencies of samples, in milliseconds."""
    return [1000 * s.latency for s in samples]


def median_of(rounds: Iterable[T], figure: Callable[[T], float | None]) -> float | None:
    """Return the median of one figure over rounds, leaving out the rounds that lack it; None where all do."""
    figures = [value for value in map(figure, rounds) if value is not None]
    return median(figures) if figures else None
