"""Instance segmentation: the objects in an image, each with its class, score, box and mask.

Called by `segment` for graphs with the outputs `coefficients` and `prototypes`.
"""

from typing import Literal

import cv2

from service.arrays import Tensors
from service.results import Instance
from service.tasks.detect import Limits, select
from service.vision.instances import instance_mask, on_prototypes
from service.vision.masks import Form, encode_image_mask
from zoo.recipe import Placement
from zoo.served_card import ServedCard


def answer(
    outputs: Tensors,
    index: int,
    card: ServedCard,
    placement: Placement,
    limits: Limits,
    form: Form | Literal["none"],
) -> list[Instance]:
    """Find at most `max_detections` objects in one image, best first, and compute their masks; `none` leaves them out.

    The graph's outputs are the candidates, which `detect.select` describes; `coefficients` float32 [N, K, M] and
    `prototypes` float32 [N, M, h, w], which `vision.instances` describes.
    """
    coefficients, prototypes = outputs["coefficients"][index], outputs["prototypes"][index]
    grid = on_prototypes(placement, (card.recipe.height, card.recipe.width), prototypes.shape)

    objects = []
    for found in select(outputs, index, placement, limits, card):
        mask, frame = instance_mask(coefficients[found.rank], prototypes, found.box, grid)
        area = round(cv2.countNonZero(mask) / (placement.width * placement.height), 6)
        encoded = None if form == "none" else encode_image_mask(mask, placement, form, frame)
        label = card.labels[found.class_id]
        objects.append(Instance(found.class_id, label, found.score, found.box, area, encoded))
    return objects
