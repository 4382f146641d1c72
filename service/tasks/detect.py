"""detect: the objects in an image, each with its class, score and box in pixels of the original image.

Objects are selected among a graph's candidates by score, non-maximum suppression and count. `segment` selects instances
and `pose` poses in the same way.
"""

from typing import Annotated, Any, NamedTuple, Protocol, cast

import cv2
import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct

from service.arrays import Tensors
from service.results import Box, Detection
from service.tasks.grid import MaxTiles, Merge, TileFull, TileOverlap, Tiles
from zoo.card import Nms
from zoo.recipe import Placement
from zoo.served_card import ServedCard

OF_CARD = "Default: that of the model's card, usually"


ScoreThreshold = Annotated[
    float, Meta(ge=0, le=1, description=f"Objects with a lower score are left out. {OF_CARD} 0.25.")
]
IouThreshold = Annotated[
    float,
    Meta(
        ge=0,
        le=1,
        description=f"Of two boxes of one class that overlap more than this, the better stays. {OF_CARD} 0.45.",
    ),
]
MaxDetections = Annotated[
    int, Meta(ge=1, le=1000, description=f"At most this many objects, best first. {OF_CARD} 100.")
]


class Options(Struct, frozen=True, forbid_unknown_fields=True):
    """Options of `/v1/detect`."""

    score_threshold: ScoreThreshold | None = None
    iou_threshold: IouThreshold | None = None
    max_detections: MaxDetections | None = None
    tiles: Tiles | None = None
    tile_overlap: TileOverlap = 0.2
    tile_full: TileFull = True
    max_tiles: MaxTiles = 128
    merge: Merge = "seam"


def answer(outputs: Tensors, index: int, card: ServedCard, placement: Placement, options: Options) -> list[Detection]:
    """Find at most `max_detections` objects in one image, best first. `select` describes the graph's outputs."""
    return [
        Detection(found.class_id, card.labels[found.class_id], found.score, found.box)
        for found in select(outputs, index, placement, options, card)
    ]


class Limits(Protocol):
    """The options by which candidates are selected. Each task's `Options` describe them."""

    @property
    def score_threshold(self) -> float | None: ...
    @property
    def iou_threshold(self) -> float | None: ...
    @property
    def max_detections(self) -> int | None: ...


class Selected(NamedTuple):
    """A candidate that was selected as an object.

    Attributes:
        rank: index of the candidate in the graph's outputs.
        class_id: id of its class.
        score: 0 to 1.
        box: xyxy in pixels of the original image, clipped to it; never empty.
    """

    rank: int
    class_id: int
    score: float
    box: Box


def select(outputs: Tensors, index: int, placement: Placement, limits: Limits, card: ServedCard) -> list[Selected]:
    """Select at most `max_detections` objects among the candidates of one image, best first.

    Args:
        outputs: of the graph: `boxes` float32 [N, K, 4], xyxy in pixels of the graph's input; `scores` float32 [N, K],
            in descending order; `classes` int32 [N, K], class ids.
        index: of the image in the batch, 0 to N - 1.
        placement: of the image in the graph's input.
        limits: the request's options. The card's take the place of those that are None.
        card: of the model. It says whether greedy non-maximum suppression is applied, after the score threshold: not
            if the graph applies it. Boxes of different classes suppress each other only if it is class-agnostic.
    """
    chosen_by = in_place(limits, card)
    ranks, scores, classes = candidates(outputs, index, chosen_by, owed=card.nms)
    boxes = outputs["boxes"][index, ranks]
    if chosen_by.clip_first:
        boxes = to_image_pixels(boxes, placement)
        seen = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        boxes, ranks, scores, classes = boxes[seen], ranks[seen], scores[seen], classes[seen]
    if not ranks.size:
        return []
    if card.nms:
        # `Any`, because OpenCV's stubs ask for lists. Its bindings take arrays as well, which is ten times as fast.
        corners: Any = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1, dtype=np.float64)
        groups: Any = np.zeros_like(classes) if chosen_by.class_agnostic else classes
        kept = cv2.dnn.NMSBoxesBatched(corners, cast("Any", scores), groups, 0.0, chosen_by.iou_threshold)
        chosen = np.asarray(kept, np.intp)[: chosen_by.max_detections]
    else:
        chosen = np.arange(min(ranks.size, chosen_by.max_detections))
    boxes = boxes[chosen] if chosen_by.clip_first else to_image_pixels(boxes[chosen], placement)
    found = []
    for i, (x0, y0, x1, y1) in zip(chosen.tolist(), boxes.tolist(), strict=True):
        if x1 > x0 and y1 > y0:  # False for a box that lies in the padding of the letterbox
            box = (round(x0, 2), round(y0, 2), round(x1, 2), round(y1, 2))
            found.append(Selected(int(ranks[i]), int(classes[i]), round(float(scores[i]), 6), box))
    return found


def candidates(
    outputs: Tensors, index: int, chosen_by: Nms, *, owed: bool
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Return the candidates of one image whose scores suffice, best first: their ranks in the outputs, scores, classes.

    With `multi_label`, a candidate is there once for each class whose score suffices, as in Ultralytics' `val`, and as
    the authors of RT-DETR select the best pairs of a query and a class.

    Args:
        outputs: of the graph, as for `select`; `class_scores` float32 [N, K, C] for `multi_label`.
        index: of the image in the batch, 0 to N - 1.
        chosen_by: the score threshold, the number of candidates, and whether a candidate may have several classes.
        owed: whether non-maximum suppression is owed to them: then only some are left to it.
    """
    if chosen_by.multi_label and "class_scores" in outputs:
        every = outputs["class_scores"][index, : chosen_by.candidates]
        ranks, classes = np.nonzero(every >= chosen_by.score_threshold)
        scores = every[ranks, classes]
        order = np.argsort(-scores, kind="stable")
        return ranks[order], scores[order], classes[order].astype(np.int32)
    scores = outputs["scores"][index]
    count = above(scores, chosen_by.score_threshold)
    if owed:
        count = min(count, chosen_by.candidates)
    return np.arange(count), scores[:count], outputs["classes"][index, :count]


def in_place(limits: Limits, card: ServedCard) -> Nms:
    """Return how objects are selected: the card's way, with a request's options in the place of its own."""
    usual = card.nms_options
    return Nms(
        usual.score_threshold if limits.score_threshold is None else limits.score_threshold,
        usual.iou_threshold if limits.iou_threshold is None else limits.iou_threshold,
        limits.max_detections or usual.max_detections,
        usual.class_agnostic,
        usual.multi_label,
        usual.candidates,
        usual.clip_first,
    )


def above(scores: npt.NDArray[np.float32], threshold: float) -> int:
    """Return how many scores, in descending order, are not below a threshold."""
    return int(np.searchsorted(-scores, -threshold, side="right"))


def to_image_pixels(boxes: npt.NDArray[np.float32], placement: Placement) -> npt.NDArray[np.float64]:
    """Convert boxes from pixels of the graph's input to pixels of the original image, and clip them to it.

    Args:
        boxes: float32 [K, 4], xyxy.
        placement: of the image in the graph's input.

    Returns:
        float64 [K, 4], xyxy.
    """
    scale = np.array(placement.box_scale * 2)
    offset = np.array([placement.offset_x, placement.offset_y] * 2)
    limit = np.array([placement.width, placement.height] * 2, np.float64)
    mapped: npt.NDArray[np.float64] = np.clip((boxes.astype(np.float64) - offset) / scale, 0.0, limit)
    return mapped
