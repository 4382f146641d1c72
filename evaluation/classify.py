"""Top-1 and top-5 accuracy, accuracy per class and confusions: the judge of `folder` and `zoo`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any, NamedTuple

from evaluation.dataset import ClassScore, Confusion, Example, Measure, Scores
from service.results import Classification, Result

_Z = 1.959964  # of 95 %


class Verdict(NamedTuple):
    """The true class id, and the answered ones, best first."""

    truth: int
    answers: tuple[int, ...]


class TopK:
    """Counts how often the truth is the best answer, and how often it is among the best five."""

    def __init__(self, labels: Sequence[str], k: int = 5) -> None:
        self.options: Mapping[str, Any] = {"top_k": k}
        self._labels = labels
        self._k = k
        self._pairs: Counter[tuple[int, int]] = Counter()
        self._among = 0
        self._fewest = len(labels)  # of the classes of an answer: recorded ones may have fewer than k

    def compare(self, example: Example, result: Result) -> Verdict:
        return Verdict(
            example.truth, tuple(found.class_id for found in result.predictions if isinstance(found, Classification))
        )

    def add(self, verdict: Verdict) -> None:
        self._pairs[verdict.truth, verdict.answers[0]] += 1
        self._fewest = min(self._fewest, len(verdict.answers))
        self._among += verdict.truth in verdict.answers[: self._k]

    def scores(self) -> Scores:
        counts: Counter[int] = Counter()
        for (truth, _), count in self._pairs.items():
            counts[truth] += count
        right = {truth: self._pairs[truth, truth] for truth in counts}
        measures = [share("top-1", sum(right.values()), counts.total())]
        if self._k < len(self._labels) and self._k <= self._fewest:
            measures.append(share(f"top-{self._k}", self._among, counts.total()))
        return Scores(
            measures,
            "accuracy",
            [ClassScore(self._labels[i], right[i] / counts[i], counts[i]) for i in sorted(counts)],
            [Confusion(self._labels[i], self._labels[j], count) for (i, j), count in sorted(self._pairs.items())],
        )


def share(name: str, right: int, total: int) -> Measure:
    """Return a share as a measure, with its 95 % Wilson score interval (Wilson 1927)."""
    low, high = wilson(right, total)
    return Measure(name, right / total, low, high)


def wilson(right: int, total: int, z: float = _Z) -> tuple[float, float]:
    """Return the Wilson score interval of `right` out of `total`, which must not be 0; `z` is 1.96 for 95 %."""
    p = right / total
    centre = p + z * z / (2 * total)
    half = z * sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)
