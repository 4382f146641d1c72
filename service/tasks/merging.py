"""Merges the objects that were found in overlapping parts of an image. `tiles` calls it; arrays only.

A part shows a complete object, or cuts it at an edge. Complete objects of two parts are the same if their boxes agree
(non-maximum suppression by IoU). A box that touches an inner edge of its part is perhaps a piece, whose IoU with the
object is small: it belongs to a complete object in which it lies for more than half, and is left out. Other pieces are
united by IoS, their intersection over the smaller one, as SAHI does (https://github.com/obss/sahi); SAHI does so with
complete objects as well, and loses small objects before large ones of their class.
"""

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
How = Literal["seam", "nms", "none"]

_INSIDE = 0.5  # share of a piece that lies in the object to which it belongs; SAHI's default
_EDGE = 0.01  # share of a part's side within which a box touches the edge: detectors are not exact to a pixel
_MOST = 10_000  # candidates that are merged, the best: the work is at most their number squared


class Found(NamedTuple):
    """The objects of all parts.

    Attributes:
        boxes: float64 [K, 4], xyxy in pixels of the whole image.
        scores: float64 [K].
        classes: int [K]; only objects of the same class are merged.
        parts: int [K], the part in which each was found. What was found in one part is never merged: there it was seen
            to be different objects.
        cut: bool [K], whether the box touches an inner edge of its part.
    """

    boxes: Floats
    scores: Floats
    classes: npt.NDArray[np.int64]
    parts: Indices
    cut: npt.NDArray[np.bool_]


class Merged(NamedTuple):
    """An object of the whole image.

    Attributes:
        members: indices of those that it was merged of, the best first. Their masks are parts of its mask.
        box: xyxy in pixels of the whole image.
        score: the best of them.
    """

    members: list[int]
    box: Floats
    score: float


def touches_inner_edge(boxes: Floats, parts: Floats, width: int, height: int) -> npt.NDArray[np.bool_]:
    """Return which boxes touch an edge of their part that is not the image's own.

    Args:
        boxes: [K, 4], xyxy in pixels of the whole image.
        parts: [K, 4], the part of each, likewise.
        width: of the whole image.
        height: likewise.
    """
    near = _EDGE * (parts[:, 2:] - parts[:, :2])
    low = (boxes[:, :2] - parts[:, :2] <= near) & (parts[:, :2] > 0)
    high = (parts[:, 2:] - boxes[:, 2:] <= near) & (parts[:, 2:] < [width, height])
    return np.asarray((low | high).any(axis=1))


def merge(found: Found, how: How, iou_threshold: float, most: int) -> list[Merged]:
    """Merge the objects of all parts, and return at most `most`, best first.

    Args:
        found: in all parts.
        how: `seam` as above; `nms`: as if no box touched an inner edge; `none`: each object stays as it is.
        iou_threshold: of two complete boxes that overlap more than this, the better stays.
        most: how many objects are returned.
    """
    order = np.argsort(-found.scores, kind="stable")[:_MOST]
    if how == "none":
        return [_alone(found, index) for index in order[:most]]
    cut = found.cut[order] & (how == "seam")
    complete = _complete(found, order[~cut], iou_threshold, most)
    pieces = _unite(found, _outside(found, complete, order[cut], iou_threshold), most)
    objects = [*(_alone(found, index) for index in complete), *pieces]
    return sorted(objects, key=lambda merged: -merged.score)[:most]


def _alone(found: Found, index: np.intp) -> Merged:
    return Merged([int(index)], found.boxes[index], float(found.scores[index]))


def _complete(found: Found, left: Indices, iou_threshold: float, most: int) -> list[np.intp]:
    """Greedy non-maximum suppression between parts. `left`: the candidates, best first."""
    kept: list[np.intp] = []
    while len(left) and len(kept) < most:
        best, left = left[0], left[1:]
        kept.append(best)
        shared, area, areas = _shared(found.boxes[best], found.boxes[left])
        same = shared > iou_threshold * (area + areas - shared)
        left = left[~(same & _may_be(found, left, best))]
    return kept


def _outside(found: Found, complete: list[np.intp], pieces: Indices, iou_threshold: float) -> Indices:
    """Return the pieces that are of none of the complete objects.

    Those that are add nothing: the object was seen whole, and what is seen of it without the rest is less sure.
    """
    for whole in complete:
        if not len(pieces):
            break
        shared, area, areas = _shared(found.boxes[whole], found.boxes[pieces])
        inside = (shared > _INSIDE * areas) | (shared > iou_threshold * (area + areas - shared))
        pieces = pieces[~(inside & _may_be(found, pieces, whole))]
    return pieces


def _unite(found: Found, left: Indices, most: int) -> list[Merged]:
    """Unite pieces whose IoS is more than half, until no other one lies in the box around them."""
    objects: list[Merged] = []
    while len(left) and len(objects) < most:
        best, left = left[0], left[1:]
        members, box = [best], found.boxes[best]
        rest = left[_may_be(found, left, best)]
        boxes, parts = found.boxes[rest], found.parts[rest]
        while len(rest):
            shared, area, areas = _shared(box, boxes)
            same = shared > _INSIDE * np.minimum(area, areas)
            if not same.any():
                break
            first = int(np.argmax(same))  # one at a time: of each part only one belongs to the object
            members.append(rest[first])
            box = np.concatenate([np.minimum(box[:2], boxes[first, :2]), np.maximum(box[2:], boxes[first, 2:])])
            others = parts != parts[first]
            rest, boxes, parts = rest[others], boxes[others], parts[others]
        left = left[~np.isin(left, members)]
        objects.append(Merged([int(member) for member in members], box, float(found.scores[best])))
    return objects


def _may_be(found: Found, others: Indices, one: np.intp) -> npt.NDArray[np.bool_]:
    """Return which of the others may be the same object: of the same class, and of other parts."""
    same: npt.NDArray[np.bool_] = (found.classes[others] == found.classes[one]) & (
        found.parts[others] != found.parts[one]
    )
    return same


def _shared(box: Floats, boxes: Floats) -> tuple[Floats, float, Floats]:
    """Return the intersections of a box with others, its area, and theirs."""
    sides = np.maximum(np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2]), 0.0)
    own = boxes[:, 2:] - boxes[:, :2]
    # not `prod(axis=1)`, which takes several times as long for two columns
    return sides[:, 0] * sides[:, 1], float((box[2] - box[0]) * (box[3] - box[1])), own[:, 0] * own[:, 1]
