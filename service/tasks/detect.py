"""detect: the objects in an image, each with its class, score and box in pixels of the original image."""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy.typing as npt
from msgspec import Meta, Struct

from service.results import Detection
from service.tasks.candidates import select
from zoo.recipe import Placement
from zoo.served_card import ServedCard


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
    """Find at most `max_detections` objects in one image, best first.

    Args:
        outputs: of the graph; `candidates.select` describes them.
        index: of the image in the batch, 0 to N - 1.
        card: of the model.
        placement: of the image in the graph's input.
        options: of the request.
    """
    return [
        Detection(found.class_id, card.labels[found.class_id], found.score, found.box)
        for found in select(outputs, index, placement, options, nms=card.nms)
    ]
