"""How much of a model's answers a variant of it keeps. `export.variant` publishes none that keeps too little.

What counts are the answers that fp32 is sure of: what a client acts on. `zoo.card.Bound` defines the terms.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torchvision.ops import batched_nms, box_iou

from export.golden import MIN_AREA, MIN_SCORE, NMS_IOU, OPAQUE, instance_mask
from export.reference import Outputs
from zoo import rotated
from zoo.card import Recipe
from zoo.errors import ExportError

Array = npt.NDArray[Any]
FOUND_SCORE = 0.25  # from here on a variant's box counts as found: the service's own threshold
FOUND_IOU = 0.5
_SIGMA = 0.06  # about the mean of COCO's


def measure(expected: Sequence[Outputs], actual: Sequence[Outputs], recipe: Recipe) -> tuple[float, float]:
    """Compare a variant's outputs with fp32's, one image each (a batch of one).

    Args:
        expected: fp32's.
        actual: the variant's.
        recipe: gives the input's size, for the masks of instances.

    Returns:
        The agreement, a share: of fp32's sure top-1 classes (a probability of at least 0.5) that are the variant's
        top-1, of its sure objects (a score of at least 0.5 after NMS) that the variant finds again (the same class, a
        score of at least 0.25, a box with an IoU of at least 0.5 (of rotated boxes the ProbIoU) and, where objects have
        masks or keypoints, a mask with such an IoU, or keypoints as similar), or the mean IoU of masks over classes
        that cover at least 1 %.
        And the shift: the median change of those answers' scores; for masks, of the covered share of the input.

    Raises:
        ExportError: fp32 is sure of nothing on any of the images.
    """
    pairs = [pair for e, a in zip(expected, actual, strict=True) for pair in _pairs(e, a, recipe)]
    if not pairs:
        raise ExportError("fp32 is sure of nothing on the photos, so a variant cannot be compared with it")
    agreement, shift = np.array(pairs).T
    return float(np.mean(agreement)), float(np.median(shift))


def _pairs(expected: Outputs, actual: Outputs, recipe: Recipe) -> Iterator[tuple[float, float]]:
    """Per sure answer: how far it was found again (0 to 1), and the change of its score or area."""
    if "probabilities" in expected:
        yield from _classes(expected["probabilities"][0], actual["probabilities"][0])
    elif "boxes" in expected and expected["boxes"].shape[2] == 5:
        yield from _rotated(expected, actual)
    elif "boxes" in expected:
        yield from _objects(expected, actual, recipe)
    elif "alpha" in expected:
        yield from _masks(expected["alpha"][0] >= OPAQUE, actual["alpha"][0] >= OPAQUE)
    else:
        yield from _masks(expected["mask"][0], actual["mask"][0])


def _classes(expected: Array, actual: Array) -> Iterator[tuple[float, float]]:
    top = int(expected.argmax())
    if expected[top] >= MIN_SCORE:
        yield float(actual.argmax() == top), abs(float(expected[top] - actual[top]))


def _rotated(expected: Outputs, actual: Outputs) -> Iterator[tuple[float, float]]:
    sure = int((expected["scores"][0] >= MIN_SCORE).sum())
    boxes, scores, classes = (expected[name][0] for name in ("boxes", "scores", "classes"))
    overlap = rotated.probiou(boxes[:sure], actual["boxes"][0])
    for i in rotated.suppress(boxes[:sure], classes[:sure], NMS_IOU):
        again = (actual["classes"][0] == classes[i]) & (actual["scores"][0] >= FOUND_SCORE) & (overlap[i] >= FOUND_IOU)
        alike = np.flatnonzero(again)  # the best first
        yield (1.0, abs(float(scores[i] - actual["scores"][0][alike[0]]))) if alike.size else (0.0, float(scores[i]))


def _similarity(expected: Outputs, i: int, actual: Outputs, j: int) -> float:
    """The similarity of two candidates' keypoints as COCO's (OKS), with one sigma for all points; 0 to 1."""
    one, other = expected["keypoints"][0][i], actual["keypoints"][0][j]
    x0, y0, x1, y1 = expected["boxes"][0][i].astype(float)
    squared = ((one[:, :2] - other[:, :2]).astype(float) ** 2).sum(1)
    return float(np.exp(-squared / (2 * max((x1 - x0) * (y1 - y0), 1.0) * (2 * _SIGMA) ** 2)).mean())


def _objects(expected: Outputs, actual: Outputs, recipe: Recipe) -> Iterator[tuple[float, float]]:
    boxes, scores, classes = (torch.from_numpy(expected[name][0]) for name in ("boxes", "scores", "classes"))
    found_boxes, found_scores, found_classes = (
        torch.from_numpy(actual[name][0]) for name in ("boxes", "scores", "classes")
    )
    sure = int((scores >= MIN_SCORE).sum())
    for i in batched_nms(boxes[:sure], scores[:sure], classes[:sure], NMS_IOU).tolist():
        again = (found_classes == classes[i]) & (found_scores >= FOUND_SCORE)
        again &= box_iou(boxes[i : i + 1], found_boxes)[0] >= FOUND_IOU
        alike = again.nonzero()[:, 0].tolist()  # the best first
        if "prototypes" in expected and alike:
            mask = _instance(expected, i, recipe)
            alike = [j for j in alike if _overlap(mask, _instance(actual, j, recipe)) >= FOUND_IOU]
        if "keypoints" in expected:
            alike = [j for j in alike if _similarity(expected, i, actual, j) >= FOUND_IOU]
        if alike:
            yield 1.0, abs(float(scores[i] - found_scores[alike[0]]))
        else:
            yield 0.0, float(scores[i])


def _instance(outputs: Outputs, i: int, recipe: Recipe) -> Array:
    """The mask of a candidate, bool [H, W] of the input."""
    return instance_mask(outputs["coefficients"][0][i], outputs["prototypes"][0], outputs["boxes"][0][i], recipe)


def _overlap(one: Array, other: Array) -> float:
    """The IoU of two masks; of two empty ones 1."""
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 1.0


def _masks(expected: Array, actual: Array) -> Iterator[tuple[float, float]]:
    for class_id in np.unique(expected):
        e, a = expected == class_id, actual == class_id
        if class_id and e.mean() >= MIN_AREA:
            yield _overlap(e, a), abs(float(e.mean() - a.mean()))
