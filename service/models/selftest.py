"""Tests whether a loaded model gives the same answers as its reference to the golden inputs of its folder."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from service.engine.assembly import Run
from service.models.golden_tensors import differences, read_golden
from service.models.inputs import EncodedImage
from service.settings import Settings
from service.tasks import TASKS, options_of
from zoo.served_card import AnyServed, Prediction, ServedCard

# The largest differences from the reference's answer. The fast recipe changes scores slightly, a wrong model strongly.
SCORE = 0.05
TIE = 0.01  # classes whose scores are so near the best may change places: the fast recipe, or float noise, decides
IOU = 0.85
AREA = 0.02
KEYPOINT = 0.05  # of the square root of the box's area
CLEAR = 0.5  # score from which on the place of a keypoint counts
_ADVICE = "Export the model again, or report this provider's arithmetic."


class SelfTestError(Exception):
    """A model's answer to a golden input differs from its reference's."""


def self_test(
    card: AnyServed, files: Mapping[str, bytes], run: Run, settings: Settings, *, jpegs: bool = False
) -> None:
    """Answer the golden images or tensors of a model's folder, and compare.

    Args:
        card: of the model.
        files: its golden files, by name.
        run: runs its graph.
        settings: as for a request.
        jpegs: the run decodes JPEGs.

    Raises:
        SelfTestError: the message has the input, the expected answer and the actual one.
    """
    if isinstance(card, ServedCard):
        _test_images(card, files, run, settings, jpegs=jpegs)
        return
    inputs, expected = read_golden(card, files[card.golden.file])
    if found := differences(expected, run(inputs)):
        raise SelfTestError(
            f"its answers to its golden tensors differ, as a share of the largest, by {found}. {_ADVICE}"
        )


def _test_images(card: ServedCard, files: Mapping[str, bytes], run: Run, settings: Settings, *, jpegs: bool) -> None:
    """Check that every golden prediction is found again; for a classifier the first one.

    It may be next to the first, if that is in the golden answer too, and as probable there: among many classes with low
    scores, those of a wrong model are near each other as well.
    """
    options = options_of(card.task, TASKS[card.task].golden)
    for golden in card.golden:
        image = EncodedImage(files[golden.photo], card, options, settings)
        found: list[Any] = list(image.alone(run, jpegs=jpegs).predictions)
        if card.task == "classify":
            tie = any(agrees(found[0], expected) for expected in golden.predictions)
            found = [one for one in found if found[0].score - one.score <= (TIE if tie else 0)]
        for expected in golden.predictions[:1] if card.task == "classify" else golden.predictions:
            if not any(agrees(prediction, expected) for prediction in found):
                raise SelfTestError(
                    f"on its golden photo {golden.photo} it should find {_in_words([expected])}, but it "
                    f"answered {_in_words(found[:5]) or 'nothing'}. {_ADVICE}"
                )


def agrees(found: Any, expected: Prediction) -> bool:
    """Return whether a prediction equals a golden one, within the limits above."""
    return (
        found.class_id == expected.class_id
        and (expected.score is None or abs(found.score - expected.score) <= SCORE)
        and (expected.area is None or abs(found.area - expected.area) <= AREA)
        and (expected.box is None or iou(found.box, expected.box) >= IOU)
        and (expected.corners is None or rotated_iou(found.corners, expected.corners) >= IOU)
        and (expected.keypoints is None or _are_near(found, expected))
    )


def _are_near(found: Any, expected: Prediction) -> bool:
    """Return whether all keypoints that the reference sees clearly are where it sees them, by the size of the box."""
    assert expected.keypoints is not None and expected.box is not None  # noqa: S101, PT018 - a golden pose has both
    x0, y0, x1, y1 = expected.box
    allowed = KEYPOINT * max(1.0, ((x1 - x0) * (y1 - y0)) ** 0.5)
    pairs = zip(found.keypoints.values(), expected.keypoints, strict=True)
    return all(math.dist(one[:2], other[:2]) <= allowed for one, other in pairs if other[2] >= CLEAR)


def rotated_iou(one: Sequence[tuple[float, float]], other: Sequence[tuple[float, float]]) -> float:
    """Return the intersection over union of two convex quadrilaterals, each four corners (x, y)."""
    first, second = np.array(one, np.float32), np.array(other, np.float32)
    shared, _ = cv2.intersectConvexConvex(first, second)
    areas = cv2.contourArea(first) + cv2.contourArea(second)
    return float(shared / (areas - shared)) if areas > shared else 0.0


def iou(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Return the intersection over union of two boxes (left, top, right, bottom)."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / (areas - shared) if areas > shared else 0.0


def _in_words(predictions: Iterable[Any]) -> str:
    texts = []
    for prediction in predictions:
        measures = ((name, getattr(prediction, name, None)) for name in ("score", "area", "box", "corners"))
        texts.append(
            " ".join([prediction.label, *(f"{name} {value}" for name, value in measures if value is not None)])
        )
    return "; ".join(texts)
