"""pose: the objects in an image, each with its class, score, box and keypoints, by name or in COCO's form."""

from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct

from service.arrays import Tensors
from service.results import CocoPose, Pose
from service.tasks.detect import IouThreshold, MaxDetections, ScoreThreshold, Selected, select
from zoo.recipe import Placement
from zoo.served_card import ServedCard


class Options(Struct, frozen=True, forbid_unknown_fields=True):
    """Options of `/v1/pose`."""

    score_threshold: ScoreThreshold | None = None
    iou_threshold: IouThreshold | None = None
    max_detections: MaxDetections | None = None
    form: Annotated[
        Literal["named", "coco"],
        Meta(description="Keypoints by name, or each object as in COCO's results of keypoints, without `image_id`."),
    ] = "named"


def answer(
    outputs: Tensors, index: int, card: ServedCard, placement: Placement, options: Options
) -> list[Pose] | list[CocoPose]:
    """Find at most `max_detections` objects in one image, best first, with their keypoints, which the card names.

    The graph's outputs are the candidates, which `detect.select` describes, and `keypoints` float32 [N, K, P, 3]: x and
    y in pixels of the graph's input, and a score, 0 to 1.
    """
    found = select(outputs, index, placement, options, card)
    points = [_on_image(outputs["keypoints"][index, one.rank], placement) for one in found]
    if options.form == "coco":
        return [_coco(*pair) for pair in zip(found, points, strict=True)]
    assert card.keypoints is not None  # noqa: S101 - checked when the card was read
    names = card.keypoints.names
    return [
        Pose(
            one.class_id,
            card.labels[one.class_id],
            one.score,
            one.box,
            {name: (x, y, score) for name, (x, y, score) in zip(names, values, strict=True)},
        )
        for one, values in zip(found, points, strict=True)
    ]


def _on_image(points: npt.NDArray[np.float32], placement: Placement) -> list[list[float]]:
    """Convert keypoints [P, 3] to pixels of the original image, clipped to it, and round them."""
    moved = points.astype(np.float64)
    moved[:, :2] -= (placement.offset_x, placement.offset_y)
    moved[:, :2] /= placement.box_scale
    moved[:, :2] = moved[:, :2].clip(0, (placement.width, placement.height)).round(2)
    moved[:, 2] = moved[:, 2].round(6)
    rows: list[list[float]] = moved.tolist()
    return rows


def _coco(found: Selected, points: list[list[float]]) -> CocoPose:
    x0, y0, x1, y1 = found.box
    box = (x0, y0, round(x1 - x0, 2), round(y1 - y0, 2))
    return CocoPose(found.class_id + 1, [value for point in points for value in point], found.score, box)
