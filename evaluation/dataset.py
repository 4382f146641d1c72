"""What a model is judged on: examples with their truth, and the judge who compares answers with it.

Each module beside this one that reads a format makes a `Dataset`; `run` goes through its examples.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct

from service.results import Result
from zoo.errors import ZooError

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"))


class DataError(ZooError):
    """A dataset, or a part of one, that cannot be used, with what was expected."""


@dataclass(frozen=True)
class Example:
    """One image and what is known of it.

    Attributes:
        name: for people.
        read: the image's file; called on any thread.
        truth: the class id, the id of COCO's image, or the path of the mask, as the dataset's judge expects it; None
            where nothing is known.
    """

    name: str
    read: Callable[[], bytes]
    truth: Any = None


class Measure(Struct, frozen=True, omit_defaults=True):
    """One figure, from 0 to 1, with its 95 % confidence interval where it is a share of independent images."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None


class ClassScore(Struct, frozen=True):
    """One class: its `value` of the measure that the judge names, and on how many images, objects or pixels."""

    label: str
    value: float
    count: int


class Confusion(Struct, frozen=True):
    """How often (images, or pixels) `truth` was answered with `answer`."""

    truth: str
    answer: str
    count: int


class Scores(Struct, frozen=True):
    """What a judge found.

    Attributes:
        measures: the most important first.
        per_class_measure: what `per_class` gives: accuracy, AP or IoU.
        per_class: in the order of the class ids, only classes that were there.
        confusions: pairs that occurred, right answers included; empty where there is no such thing.
    """

    measures: list[Measure]
    per_class_measure: str
    per_class: list[ClassScore]
    confusions: list[Confusion]


class Judge(Protocol):
    """Compares answers with the truth and adds up.

    Attributes:
        options: the options with which the model is asked.
    """

    options: Mapping[str, Any]

    def compare(self, example: Example, result: Result) -> Any:
        """Compare one answer with its truth. On any thread; changes nothing.

        Raises:
            DataError: the truth of this example cannot be read, or does not fit its image.
        """

    def add(self, verdict: Any) -> None:
        """Count what `compare` returned. On one thread."""

    def scores(self) -> Scores:
        """Sum up."""


@dataclass(frozen=True)
class Dataset:
    """Examples and their judge.

    Attributes:
        format: `folder`, `coco`, `voc`, `zoo` or `photos`.
        judge: None for photos, of which nothing is known.
        notes: sentences about how it was read, for people.
    """

    format: str
    examples: Sequence[Example]
    judge: Judge | None
    notes: tuple[str, ...] = ()


def images_in(folder: Path) -> list[Path]:
    """Return the paths of all images in a folder and below it, sorted; hidden files are left out."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def spread(examples: Sequence[Example], limit: int | None) -> Sequence[Example]:
    """Take `limit` examples at even distances: the first ones of a sorted dataset would be of one class."""
    if limit is None or limit >= len(examples):
        return examples
    return [examples[i * len(examples) // limit] for i in range(limit)]
