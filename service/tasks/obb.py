"""obb: the objects in an image, each with its class, score and rotated box. `zoo.rotated` defines such boxes."""

from typing import Annotated

import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct

from service.arrays import Tensors
from service.results import Point, RotatedBox
from service.tasks.detect import OF_CARD, MaxDetections, ScoreThreshold, candidates, in_place
from zoo.recipe import Placement
from zoo.rotated import corners, normal_angle, suppress
from zoo.served_card import ServedCard

_PROB_IOU = f"Of two boxes of one class whose ProbIoU is more than this, the better stays. {OF_CARD} 0.45."
ProbIouThreshold = Annotated[float, Meta(ge=0, le=1, description=_PROB_IOU)]


class Options(Struct, frozen=True, forbid_unknown_fields=True):
    """Options of `/v1/obb`."""

    score_threshold: ScoreThreshold | None = None
    iou_threshold: ProbIouThreshold | None = None
    max_detections: MaxDetections | None = None


def answer(outputs: Tensors, index: int, card: ServedCard, placement: Placement, options: Options) -> list[RotatedBox]:
    """Find at most `max_detections` objects in one image, whose proportions were kept, best first.

    The graph's outputs are `boxes` float32 [N, K, 5], (x, y, width, height, angle) in pixels of the graph's input and
    radians; `scores` float32 [N, K], in descending order; `classes` int32 [N, K], class ids.
    """
    chosen_by = in_place(options, card)
    ranks, scores, classes = candidates(outputs, index, chosen_by, owed=card.nms)
    boxes = outputs["boxes"][index, ranks].astype(np.float64)
    groups = np.zeros_like(classes) if chosen_by.class_agnostic else classes
    chosen = suppress(boxes, groups, chosen_by.iou_threshold) if card.nms else np.arange(ranks.size)
    on_image = _on_image(boxes[chosen[: chosen_by.max_detections]], placement)
    return [
        RotatedBox(
            int(classes[i]),
            card.labels[int(classes[i])],
            round(float(scores[i]), 6),
            (_point(ends[0]), _point(ends[1]), _point(ends[2]), _point(ends[3])),
            _point(box[:2]),
            _point(box[2:4]),
            round(float(box[4]), 6),
        )
        for i, box, ends in zip(chosen.tolist(), on_image, corners(on_image), strict=False)
    ]


def _on_image(boxes: npt.NDArray[np.float64], placement: Placement) -> npt.NDArray[np.float64]:
    """Convert boxes [K, 5] to pixels of the original image."""
    moved = boxes.copy()
    scale = placement.box_scale  # both equal, but for the rounding of the resized image's sides
    moved[:, :2] = (boxes[:, :2] - (placement.offset_x, placement.offset_y)) / scale
    moved[:, 2:4] = boxes[:, 2:4] / scale
    moved[:, 4] = normal_angle(boxes[:, 4])
    return moved


def _point(values: npt.NDArray[np.float64]) -> Point:
    return round(float(values[0]), 2), round(float(values[1]), 2)
