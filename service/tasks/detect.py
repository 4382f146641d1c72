"""detect: candidate `boxes`, `scores` and `classes` -> objects in pixels of the original picture."""

from collections.abc import Mapping
from typing import Annotated, Any

import cv2
import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct

from service.results import Detection
from zoo.card import ServedCard
from zoo.recipe import Placement


class Options(Struct, frozen=True, forbid_unknown_fields=True):
    """Options of `/v1/detect`."""

    score_threshold: Annotated[float, Meta(ge=0, le=1, description="Objects with a lower score are left out.")] = 0.25
    iou_threshold: Annotated[
        float, Meta(ge=0, le=1, description="Of two boxes of one class that overlap more than this, the better stays.")
    ] = 0.45
    max_detections: Annotated[int, Meta(ge=1, le=1000, description="At most this many objects, best first.")] = 100


def answer(
    outputs: Mapping[str, npt.NDArray[Any]], index: int, card: ServedCard, placement: Placement, options: Options
) -> list[Detection]:
    """Turn the candidates of picture `index` into at most `max_detections` objects, best first.

    `boxes` float32 [N, K, 4] are xyxy in pixels of the graph's input, `scores` float32 [N, K] fall from left to right,
    `classes` are int32 [N, K]. Non-maximum suppression is greedy and per class, and runs only where the card says that
    it is still owed.
    """
    scores = outputs["scores"][index]
    count = int(np.searchsorted(-scores, -options.score_threshold, side="right"))  # scores fall: a prefix passes
    if count == 0:
        return []
    boxes, scores = outputs["boxes"][index, :count], scores[:count]
    classes: Any = outputs["classes"][index, :count]
    if card.nms:
        # OpenCV's stubs ask for lists where its bindings take arrays, an order of magnitude faster.
        corners: Any = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1, dtype=np.float64)
        kept = cv2.dnn.NMSBoxesBatched(corners, scores, classes, 0.0, options.iou_threshold)
        chosen = np.asarray(kept, np.intp)[: options.max_detections]
    else:
        chosen = np.arange(min(count, options.max_detections))
    found = []
    for i, (x0, y0, x1, y1) in zip(chosen, to_picture(boxes[chosen], placement).tolist(), strict=True):
        if x1 > x0 and y1 > y0:  # what lay wholly in the letterbox's border is clipped to nothing
            box = (round(x0, 2), round(y0, 2), round(x1, 2), round(y1, 2))
            class_id = int(classes[i])
            found.append(Detection(class_id, card.labels[class_id], round(float(scores[i]), 6), box))
    return found


def to_picture(boxes: npt.NDArray[np.float32], placement: Placement) -> npt.NDArray[np.float64]:
    """Map xyxy boxes [K, 4] from pixels of the graph's input to pixels of the original picture, clipped to it."""
    scale = np.array([placement.scale_x, placement.scale_y] * 2)
    offset = np.array([placement.offset_x, placement.offset_y] * 2)
    limit = np.array([placement.width, placement.height] * 2, np.float64)
    mapped: npt.NDArray[np.float64] = np.clip((boxes.astype(np.float64) - offset) / scale, 0.0, limit)
    return mapped
