"""How far an answer may move when its picture is prepared in another way, and how far it did. For `decode_recipes`."""

import math
import statistics
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from service.models.selftest import iou
from service.results import Detection

BOUND = 0.02


class Shift(Struct, frozen=True):
    """How far an answer for one variant moved.

    Attributes:
        grey: mean difference of the inputs, in grey levels.
        score: classify: the largest difference of a probability; detect: of a found object's score.
        changed: classify: another class is the best; detect: an object of at least 0.5 is no longer found.
        margin: where changed: how far the exact answer's two best classes were apart; 1 for an object.
        iou: detect: the smallest overlap of an object of at least 0.5 with the same one in the exact answer.
    """

    photo: str
    size: str
    grey: float
    score: float
    changed: bool = False
    margin: float = 0.0
    iou: float = 1.0


def compare_classes(exact: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> dict[str, Any]:
    """How far probabilities [C] moved, as the fields of a `Shift`."""
    changed = bool(exact.argmax() != other.argmax())
    second, first = np.sort(exact)[-2:]
    return {
        "score": float(np.abs(exact - other).max()),
        "changed": changed,
        "margin": float(first - second) if changed else 0.0,
    }


def compare_objects(exact: list[Detection], other: list[Detection]) -> dict[str, Any]:
    """How far objects moved, as the fields of a `Shift`: each of at least 0.5 is sought again in its class."""
    score, overlap, lost = 0.0, 1.0, False
    for wanted in exact:
        if wanted.score < 0.5:
            continue
        same = [found for found in other if found.class_id == wanted.class_id]
        best = max(same, key=lambda found: iou(found.box, wanted.box), default=None)
        if best is None or iou(best.box, wanted.box) < 0.5:
            lost = True
            continue
        score = max(score, abs(best.score - wanted.score))
        overlap = min(overlap, iou(best.box, wanted.box))
    return {"score": score, "changed": lost, "margin": float(lost), "iou": overlap}


class Verdict(Struct, frozen=True):
    """What came of one way for one model. `worst` is the largest `score` shift by size."""

    score: float
    score_p99: float
    grey: float
    changed: int
    margin: float
    iou: float
    worst: dict[str, float]
    worst_photo: str

    @property
    def holds(self) -> bool:
        """Whether it stays within the bound; the best class may change only where two were as good within it."""
        return self.score < BOUND and self.margin < BOUND and self.iou > 0.9


def judge(shifts: list[Shift]) -> Verdict:
    """Sum up the shifts of one way and model."""
    scores = sorted(shift.score for shift in shifts)
    worst = max(shifts, key=lambda shift: shift.score)
    sizes = dict.fromkeys(shift.size for shift in shifts)
    return Verdict(
        score=scores[-1],
        score_p99=scores[math.ceil(len(scores) * 0.99) - 1],
        grey=statistics.fmean(shift.grey for shift in shifts),
        changed=sum(shift.changed for shift in shifts),
        margin=max(shift.margin for shift in shifts),
        iou=min(shift.iou for shift in shifts),
        worst={size: max(shift.score for shift in shifts if shift.size == size) for size in sizes},
        worst_photo=f"{worst.photo}, {worst.size}",
    )
