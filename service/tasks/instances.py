"""Instances: detect's candidates with mask coefficients, and prototypes -> objects, each with its box and its mask.

Called by `segment` for graphs that answer them.
"""

from collections.abc import Mapping
from typing import Any, Literal

import cv2
import numpy.typing as npt

from service.results import Instance
from service.tasks.candidates import Limits, Survivor, survivors
from service.vision.instances import instance_mask, on_prototypes
from service.vision.masks import Form, write_down
from zoo.recipe import Placement
from zoo.served_card import ServedCard


def answer(
    outputs: Mapping[str, npt.NDArray[Any]],
    index: int,
    card: ServedCard,
    placement: Placement,
    limits: Limits,
    form: Form | Literal["none"],
) -> list[Instance]:
    """Find at most `max_detections` objects in image `index`, best first, and cut each out.

    Beside the candidates (see `survivors`), the outputs are `coefficients` float32 [N, K, M] and `prototypes` float32
    [N, M, h, w]. Only the survivors' masks are put together, each in its box alone.
    """
    coefficients, prototypes = outputs["coefficients"][index], outputs["prototypes"][index]
    grid = on_prototypes(placement, (card.recipe.height, card.recipe.width), prototypes.shape)

    def cut_out(found: Survivor) -> Instance:
        mask, frame = instance_mask(coefficients[found.rank], prototypes, found.box, grid)
        area = cv2.countNonZero(mask) / (placement.width * placement.height)
        return Instance(
            found.class_id,
            card.labels[found.class_id],
            found.score,
            found.box,
            round(area, 6),
            None if form == "none" else write_down(mask, placement, form, frame),
        )

    return [cut_out(found) for found in survivors(outputs, index, placement, limits, nms=card.nms)]
