"""Datasets: examples with their truth, and a judge that compares answers with it.

The modules that read formats make a `Dataset`; `run` evaluates its examples.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from msgspec import Struct

from service.results import Result
from zoo.errors import ZooError


class DataError(ZooError):
    """A dataset, or a part of it, cannot be used; the message has what was expected."""


@dataclass(frozen=True)
class Example:
    """One image and its truth.

    Attributes:
        name: for messages.
        read: returns the encoded image; called on any thread.
        truth: the class id, the id of COCO's image, or the path of the mask, depending on the dataset's judge; None if
            it is not known.
    """

    name: str
    read: Callable[[], bytes]
    truth: Any = None


class Measure(Struct, frozen=True, omit_defaults=True):
    """One value, 0 to 1, with its 95 % confidence interval if it is a share of independent images."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None


class ClassScore(Struct, frozen=True):
    """One class: its `value` of the judge's measure, 0 to 1, and the number of its images, objects or pixels."""

    label: str
    value: float
    count: int


class Confusion(Struct, frozen=True):
    """The number of images or pixels of the class `truth` that were answered as `answer`."""

    truth: str
    answer: str
    count: int


class Scores(Struct, frozen=True):
    """The results of a judge.

    Attributes:
        measures: the most important first.
        per_class_measure: the measure of `per_class`: accuracy, AP or IoU.
        per_class: in the order of the class ids, only classes that occurred.
        confusions: all pairs that occurred, correct answers included; empty for detection.
    """

    measures: list[Measure]
    per_class_measure: str
    per_class: list[ClassScore]
    confusions: list[Confusion]


class Judge(Protocol):
    """Compares answers with the truth and computes the scores.

    Attributes:
        options: of the task, for the predictor.
    """

    options: Mapping[str, Any]

    def compare(self, example: Example, result: Result) -> Any:
        """Compare one answer with its truth. Called on any thread; does not change the judge.

        Raises:
            DataError: the truth of this example cannot be read, or does not fit its image.
        """

    def add(self, verdict: Any) -> None:
        """Add a result of `compare`. Called on one thread."""

    def scores(self) -> Scores:
        """Return the scores of all added results."""


@dataclass(frozen=True)
class Dataset:
    """Examples and their judge.

    Attributes:
        format: `folder`, `coco`, `voc`, `zoo` or `photos`.
        judge: None for photos without a truth.
        notes: sentences about how it was read.
    """

    format: str
    examples: Sequence[Example]
    judge: Judge | None
    notes: tuple[str, ...] = ()


def spread(examples: Sequence[Example], limit: int | None) -> Sequence[Example]:
    """Take `limit` examples at equal distances: the first ones of a sorted dataset would have the same class."""
    if limit is None or limit >= len(examples):
        return examples
    return [examples[i * len(examples) // limit] for i in range(limit)]
