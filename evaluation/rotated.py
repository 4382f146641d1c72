"""AP of rotated boxes, matched by ProbIoU as Ultralytics' `val` does. The judge of `coco` for the task obb.

COCO has no measure of them. An answer, the best first, is matched with the object of its class that it overlaps most
among those that no better answer has, at overlaps of 0.5, 0.55, ..., 0.95. Precision, made to never rise with recall,
is interpolated linearly at 101 recalls, and integrated.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from evaluation.average_precision import Object, options_of
from evaluation.dataset import ClassScore, DataError, Example, Measure, Scores
from service.results import Result
from zoo.rotated import probiou
from zoo.served_card import ServedCard

_OVERLAPS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0, 1, 101)
Array = npt.NDArray[Any]


class _Verdict(NamedTuple):
    """One image: the classes of its objects; of its answers the classes, scores and, per overlap, what was matched."""

    expected: Array
    classes: Array
    scores: Array
    matched: Array


class RotatedAveragePrecision:
    """AP of rotated boxes. Crowds, and objects that are to be ignored, are left out."""

    def __init__(self, objects: Sequence[Object], card: ServedCard) -> None:
        """Create the judge.

        Args:
            objects: the truth; their outlines are polygons, around which the smallest rotated boxes are taken.
            card: of the model.

        Raises:
            DataError: an object has no polygon.
        """
        self.options: Mapping[str, Any] = options_of(card)
        self._labels = card.labels
        self._boxes: dict[Any, list[tuple[int, Array]]] = {}
        for one in objects:
            if not (one.crowd or one.ignore):
                self._boxes.setdefault(one.image, []).append((one.class_id, _smallest(one)))
        self._verdicts: list[_Verdict] = []

    def compare(self, example: Example, result: Result) -> _Verdict:
        """Match the answers to one image with its objects."""
        objects = self._boxes.get(example.truth, [])
        expected, truth = np.array([one[0] for one in objects], int), np.array([one[1] for one in objects])
        answers: list[Any] = list(result.predictions)
        classes = np.array([one.class_id for one in answers], int)
        matched = np.zeros((len(_OVERLAPS), len(answers)), np.bool_)
        if objects and answers:
            found = np.array([(*one.center, *one.size, one.angle) for one in answers])
            overlap = np.where(expected[:, None] == classes[None], probiou(truth.reshape(-1, 5), found), 0)
            matched = match(overlap)
        return _Verdict(expected, classes, np.array([one.score for one in answers], float), matched)

    def add(self, verdict: _Verdict) -> None:
        """Add one image."""
        self._verdicts.append(verdict)

    def scores(self) -> Scores:
        """Return AP, AP50 and AP75, and the AP of each class."""
        if not any(one.expected.size for one in self._verdicts):
            raise DataError("no object in the images that were judged counts: there is nothing to find")
        expected, classes, scores = (
            np.concatenate([getattr(one, name) for one in self._verdicts]) for name in ("expected", "classes", "scores")
        )
        order = np.argsort(-scores, kind="stable")
        matched = np.concatenate([one.matched for one in self._verdicts], axis=1)[:, order]
        classes = classes[order]
        each = {
            int(one): np.array([_area(row[classes == one], int((expected == one).sum())) for row in matched])
            for one in np.unique(expected)
        }
        mean = np.mean(list(each.values()), axis=0)
        measures = [Measure("AP", float(mean.mean())), Measure("AP50", float(mean[0])), Measure("AP75", float(mean[5]))]
        per_class = [
            ClassScore(self._labels[one], float(ap.mean()), int((expected == one).sum())) for one, ap in each.items()
        ]
        return Scores(measures, "AP", per_class, [])


def match(overlap: Array) -> Array:
    """Match the answers to an image with its objects.

    Args:
        overlap: [objects, answers], the answers sorted by score, the best first; 0 where the classes differ.

    Returns:
        bool [overlaps, answers]: which answers have an object.
    """
    rows = range(len(_OVERLAPS))
    matched = np.zeros((len(rows), overlap.shape[1]), np.bool_)
    taken = np.zeros((overlap.shape[0], len(rows)), np.bool_)
    for answer in np.flatnonzero(overlap.max(0) >= _OVERLAPS[0]):
        free = np.where(taken, 0.0, overlap[:, answer, None])
        best = free.argmax(0)
        matched[:, answer] = free[best, rows] >= _OVERLAPS
        taken[best, rows] |= matched[:, answer]
    return matched


def _smallest(one: Object) -> Array:
    """The smallest rotated box around an object's polygon: centre, width, height and angle in radians."""
    if one.outline is None or not one.outline.polygons:
        raise DataError(f"{one.where} has no polygon as `segmentation`: a rotated box is given by its four corners")
    points = np.array([value for polygon in one.outline.polygons for value in polygon], np.float32).reshape(-1, 2)
    (x, y), (width, height), degrees = cv2.minAreaRect(points)
    return np.array([x, y, width, height, np.deg2rad(degrees)])


def _area(matched: Array, objects: int) -> float:
    """The area under precision over recall of one class, for answers in the order of their scores."""
    if not matched.size:
        return 0.0
    right = np.cumsum(matched)
    recall, precision = right / objects, right / np.arange(1, len(right) + 1)
    recalls = np.concatenate([[0.0], recall, [recall[-1], 1.0]])
    precisions = np.concatenate([[1.0], precision, [0.0, 0.0]])
    falling = np.maximum.accumulate(precisions[::-1])[::-1]
    return float(np.trapezoid(np.interp(_RECALLS, recalls, falling), _RECALLS))
