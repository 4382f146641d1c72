"""Answers for an image that was looked at in tiles: from the objects of each tile to those of the image.

`models.tiles` makes a job of each tile, and calls this with their answers. `grid` has the options and cuts the tiles.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from service.results import Detection, Instance, Mask, RunLength
from service.tasks.detect import Limits, in_place
from service.tasks.grid import CutBox, Tiling
from service.tasks.merging import Found, Merged, merge, touches_inner_edge
from service.vision.masks import Frame, convert_rle, move_rle, unite_rle
from zoo.served_card import ServedCard


def options_of_a_tile(options: Any) -> Any:
    """Return the options for one of several tiles. Masks are run lengths, which can be united."""
    changes = {"mask": "rle"} if hasattr(options, "mask") else {}
    kept: Struct = msgspec.structs.replace(options, tiles=None, **changes)
    return kept


def merge_tiles(
    cuts: Sequence[CutBox],
    found: Sequence[Sequence[Any]],
    size: tuple[int, int],
    card: ServedCard,
    options: Any,
    tiling: Tiling,
) -> list[Any]:
    """Merge what was found in the tiles of an image. Returns at most `max_detections` objects, best first.

    Args:
        cuts: the tiles.
        found: in each, `Detection` or `Instance`, with boxes and masks in its pixels.
        size: of the whole image, width and height in pixels.
        card: of the model. Boxes of different classes are merged if its non-maximum suppression is class-agnostic.
        options: of the request.
        tiling: among them.
    """
    parts = np.repeat(np.arange(len(cuts)), [len(each) for each in found])
    flat = [each for objects in found for each in objects]
    if not flat:
        return []
    places = np.array(cuts, np.float64)[parts]
    boxes = np.array([each.box for each in flat], np.float64) + np.tile(places[:, :2], 2)
    limits: Limits = options
    chosen_by = in_place(limits, card)
    candidates = Found(
        boxes,
        np.array([each.score for each in flat], np.float64),
        np.array([0 if chosen_by.class_agnostic else each.class_id for each in flat], np.int64),
        parts,
        touches_inner_edge(boxes, places, *size),
    )
    merged = merge(candidates, tiling.merge, chosen_by.iou_threshold, chosen_by.max_detections)
    return [_object(each, flat, [cuts[parts[member]] for member in each.members], size, options) for each in merged]


def _object(
    merged: Merged, flat: Sequence[Detection | Instance], cuts: Sequence[CutBox], size: tuple[int, int], options: Any
) -> Detection | Instance:
    best = flat[merged.members[0]]
    x0, y0, x1, y1 = (round(value, 2) for value in merged.box.tolist())
    box = (x0, y0, x1, y1)
    if not isinstance(best, Instance):
        return Detection(best.class_id, best.label, merged.score, box)
    (left, top), (right, bottom) = np.min(cuts, axis=0)[:2].tolist(), np.max(cuts, axis=0)[2:].tolist()
    masks = [
        move_rle(_run_lengths(flat[member]), Frame(cut[0] - left, cut[1] - top, right - left, bottom - top))
        for member, cut in zip(merged.members, cuts, strict=True)
    ]
    mask, area = unite_rle(masks)  # of the part of the image that these tiles are, for the image may be huge
    form = options.mask
    shown: Mask | None = None if form == "none" else convert_rle(mask, form, box, Frame(left, top, *size))
    return Instance(best.class_id, best.label, merged.score, box, round(area / (size[0] * size[1]), 6), shown)


def _run_lengths(found: Detection | Instance) -> RunLength:
    assert isinstance(found, Instance)  # noqa: S101 - all tiles were answered by the same model
    assert isinstance(found.mask, RunLength)  # noqa: S101 - as `options_of_a_tile` asks
    return found.mask
