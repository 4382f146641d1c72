"""From the candidates of a graph to objects: thresholds, non-maximum suppression, and the way back into the image.

Called by the tasks whose graphs answer `boxes`: `detect`, and `segment` for instances.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from service.results import Box
from zoo.recipe import Placement


class Limits(Protocol):
    """The options that choose among candidates; each task's `Options` say what they mean."""

    @property
    def score_threshold(self) -> float: ...
    @property
    def iou_threshold(self) -> float: ...
    @property
    def max_detections(self) -> int: ...


class Survivor(NamedTuple):
    """A candidate that is an object of the image.

    Attributes:
        rank: its index among the candidates.
        class_id: of its class.
        score: 0 to 1.
        box: xyxy in pixels of the original image, clipped to it; never empty.
    """

    rank: int
    class_id: int
    score: float
    box: Box


def survivors(
    outputs: Mapping[str, npt.NDArray[Any]], index: int, placement: Placement, limits: Limits, *, nms: bool
) -> list[Survivor]:
    """Turn the candidates of image `index` into at most `max_detections` objects, best first.

    `boxes` float32 [N, K, 4] are xyxy in pixels of the graph's input, `scores` float32 [N, K] fall from left to right,
    `classes` are int32 [N, K].

    Args:
        outputs: of the graph.
        index: of the image in its batch.
        placement: the image in the graph's input.
        limits: the request's.
        nms: whether non-maximum suppression, greedy and per class, is still owed. It sees only what passes the score
            threshold.
    """
    scores = outputs["scores"][index]
    count = int(np.searchsorted(-scores, -limits.score_threshold, side="right"))  # scores fall: a prefix passes
    if count == 0:
        return []
    boxes, scores = outputs["boxes"][index, :count], scores[:count]
    classes: Any = outputs["classes"][index, :count]
    if nms:
        # OpenCV's stubs ask for lists where its bindings take arrays, an order of magnitude faster.
        corners: Any = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1, dtype=np.float64)
        kept = cv2.dnn.NMSBoxesBatched(corners, scores, classes, 0.0, limits.iou_threshold)
        chosen = np.asarray(kept, np.intp)[: limits.max_detections]
    else:
        chosen = np.arange(min(count, limits.max_detections))
    found = []
    for rank, (x0, y0, x1, y1) in zip(chosen.tolist(), to_image_pixels(boxes[chosen], placement).tolist(), strict=True):
        if x1 > x0 and y1 > y0:  # what lay wholly in the letterbox's border is clipped to nothing
            box = (round(x0, 2), round(y0, 2), round(x1, 2), round(y1, 2))
            found.append(Survivor(rank, int(classes[rank]), round(float(scores[rank]), 6), box))
    return found


def to_image_pixels(boxes: npt.NDArray[np.float32], placement: Placement) -> npt.NDArray[np.float64]:
    """Map xyxy boxes [K, 4] from pixels of the graph's input to pixels of the original image, clipped to it."""
    scale = np.array([placement.scale_x, placement.scale_y] * 2)
    offset = np.array([placement.offset_x, placement.offset_y] * 2)
    limit = np.array([placement.width, placement.height] * 2, np.float64)
    mapped: npt.NDArray[np.float64] = np.clip((boxes.astype(np.float64) - offset) / scale, 0.0, limit)
    return mapped
