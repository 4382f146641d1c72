"""obb: the objects in an image, each with its class, score and rotated box. `zoo.rotated` defines such boxes."""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct

from service.results import Point, RotatedBox
from zoo.recipe import Placement
from zoo.rotated import corners, normal_angle, suppress
from zoo.served_card import ServedCard


class Options(Struct, frozen=True, forbid_unknown_fields=True):
    """Options of `/v1/obb`."""

    score_threshold: Annotated[float, Meta(ge=0, le=1, description="Objects with a lower score are left out.")] = 0.25
    iou_threshold: Annotated[
        float,
        Meta(ge=0, le=1, description="Of two boxes of one class whose ProbIoU is more than this, the better stays."),
    ] = 0.45
    max_detections: Annotated[int, Meta(ge=1, le=1000, description="At most this many objects, best first.")] = 100


def answer(
    outputs: Mapping[str, npt.NDArray[Any]], index: int, card: ServedCard, placement: Placement, options: Options
) -> list[RotatedBox]:
    """Find at most `max_detections` objects in one image, best first.

    Args:
        outputs: of the graph: `boxes` float32 [N, K, 5], (x, y, width, height, angle) in pixels of the graph's input
            and radians; `scores` float32 [N, K], in descending order; `classes` int32 [N, K], class ids.
        index: of the image in the batch, 0 to N - 1.
        card: of the model.
        placement: of the image in the graph's input, whose proportions are kept.
        options: of the request.
    """
    scores = outputs["scores"][index]
    count = int(np.searchsorted(-scores, -options.score_threshold, side="right"))  # scores are in descending order
    boxes, classes = outputs["boxes"][index, :count].astype(np.float64), outputs["classes"][index, :count]
    chosen = suppress(boxes, classes, options.iou_threshold) if card.nms else np.arange(count)
    on_image = _on_image(boxes[chosen[: options.max_detections]], placement)
    return [
        RotatedBox(
            int(classes[rank]),
            card.labels[int(classes[rank])],
            round(float(scores[rank]), 6),
            (_point(ends[0]), _point(ends[1]), _point(ends[2]), _point(ends[3])),
            _point(box[:2]),
            _point(box[2:4]),
            round(float(box[4]), 6),
        )
        for rank, box, ends in zip(chosen.tolist(), on_image, corners(on_image), strict=False)
    ]


def _on_image(boxes: npt.NDArray[np.float64], placement: Placement) -> npt.NDArray[np.float64]:
    """Convert boxes [K, 5] to pixels of the original image."""
    moved = boxes.copy()
    scale = (placement.scale_x, placement.scale_y)  # equal, but for the rounding of the resized image's sides
    moved[:, :2] = (boxes[:, :2] - (placement.offset_x, placement.offset_y)) / scale
    moved[:, 2:4] = boxes[:, 2:4] / scale
    moved[:, 4] = normal_angle(boxes[:, 4])
    return moved


def _point(values: npt.NDArray[np.float64]) -> Point:
    return round(float(values[0]), 2), round(float(values[1]), 2)
