"""Traces the outlines of a mask as polygons along the outer edges of its pixels. Called by `masks`.

COCO's format reads a list of polygons as their union, so a hole cannot be a polygon of its own. It is joined to the
outline around it by a line that is passed twice, once in each direction, and so encloses no area. pycocotools, canvases
and the shoelace formula then leave the hole out.

Pixels that touch at a corner belong to the same part. `cv2.findContours` follows the centres of the pixels along an
outline, with the outside on the right, so it follows holes in the opposite direction.

In this module, a ring is one closed outline, of a part or of a hole.
"""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

MOST = 1000
"""The most outlines and holes of one mask. The smallest ones beyond that are left out."""
# Pixels by which a polygon is simplified: less than half of the width of the thinnest line, which is 1 / sqrt(2) if it
# is diagonal. So such a line stays.
_WITHIN = 0.25
# Changes between 0 and 255 along the rows of a mask beyond which its smaller parts are removed before it is traced.
# OpenCV would need many seconds for hundreds of thousands of outlines.
_NOISE = 50_000

# Directions, anticlockwise in the image: 0 east, 1 north-east, 2 north, ..., 7 south-east; 8 none.
_DIRECTION = np.array([3, 2, 1, 4, 8, 0, 5, 6, 7])  # by 3 * (dy + 1) + dx + 1
# Where the east, north, west and south side of a pixel starts, followed with the outside on the right.
_BEGIN = np.array([[1, 1], [1, 0], [0, 0], [0, 1]])


def _outer_sides() -> tuple[Indices, Indices]:
    """Find the sides of a pixel that belong to an outline, by the direction into the pixel and out of it.

    They are those that are passed on the right when turning from the one direction to the other.

    Returns:
        The number of these sides, and the first one; both int [9, 9], by the direction in and out.
    """
    count, first = np.zeros((9, 9), np.int64), np.zeros((9, 9), np.int64)
    for came in range(8):
        for goes in range(8):
            turn = [(came + 5 + i) % 8 for i in range((goes - came - 5) % 8)]
            sides = [direction // 2 for direction in turn if direction % 2 == 0]
            count[came, goes], first[came, goes] = len(sides), sides[0] if sides else 0
    count[8, 8] = 4  # a part of a single pixel
    return count, first


_COUNT, _FIRST = _outer_sides()


def outlines(mask: npt.NDArray[np.uint8], min_area: float = 0.0) -> list[Points]:
    """Trace the outlines of a mask.

    Where the edge of the mask is straight for more than one pixel, a polygon follows it exactly. Steps of one pixel are
    replaced by lines through their middle. Then the polygons are simplified, by at most a quarter of a pixel. So every
    pixel whose eight neighbours have the same value lies on the right side of the polygons, and nearly every other one.

    Args:
        mask: uint8 [h, w], 0 or 255.
        min_area: parts and holes of fewer pixels are left out; the largest part always stays.

    Returns:
        Polygons, float64 [n, 2] of x and y in pixels, n >= 3, the largest first. The pixel in row 0 and column 0 is the
        square from (0, 0) to (1, 1).
    """
    found, family = cv2.findContours(_without_noise(mask), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if not found:
        return []
    parents: Indices = family[0, :, 3].astype(np.int64)
    points, sides, rings = _edges(found)
    kept = _chosen(_sizes(points, rings, len(found)), parents, min_area)
    chosen = np.zeros(len(found), np.bool_)
    chosen[kept] = True
    inside = chosen[rings]
    line, of = _without_steps(points[inside], sides[inside], rings[inside])
    lines = np.split(line, np.flatnonzero(of[1:] != of[:-1]) + 1)
    simple = {ring: _simplified(line) for ring, line in zip(np.flatnonzero(chosen).tolist(), lines, strict=True)}
    holes: dict[int, list[Points]] = {}
    for ring in kept:
        if parents[ring] >= 0:
            holes.setdefault(int(parents[ring]), []).append(simple[ring])
    return [_joined(simple[ring], holes.get(ring, [])) for ring in kept if parents[ring] < 0]


def _without_noise(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Remove all but the largest parts and holes of a mask that has so many that tracing them would take long."""
    if np.count_nonzero(mask[:, 1:] != mask[:, :-1]) <= _NOISE:
        return mask
    # With a border, the background at the mask's edge is one part: the outside, which is not a hole.
    mask = np.pad(mask, 1)
    for value, connectivity in ((255, 8), (0, 4)):
        part = (mask == value).view(np.uint8)
        _, labels, statistics, _ = cv2.connectedComponentsWithStats(part, connectivity=connectivity)
        sizes = statistics[:, cv2.CC_STAT_AREA]
        sizes[0] = sizes[labels[0, 0]] = mask.size  # pixels of the other value, and the outside, always stay
        small = np.zeros(len(sizes), np.bool_)
        small[np.argsort(-sizes, kind="stable")[MOST + 1 :]] = True
        mask[small[labels]] = 255 - value
    return mask[1:-1, 1:-1].copy()


def _edges(found: Any) -> tuple[Indices, Indices, Indices]:
    """Find the straight edges of every outline, in order. Each consists of one or more sides of pixels.

    Returns:
        The start of each edge, int [n, 2] of x and y; on which side of the pixels it is, int [n], 0 to 3 as in
        `_BEGIN`; and the index of its ring, int [n].
    """
    lengths = np.array([len(one) for one in found])
    pixels = np.concatenate(found).reshape(-1, 2)
    rings = np.repeat(np.arange(len(found)), lengths)
    before, after = _neighbours(rings)
    steps = pixels[after] - pixels
    goes = _DIRECTION[3 * steps[:, 1] + steps[:, 0] + 4]
    came = goes[before]
    count = _COUNT[came, goes]
    pixel = np.repeat(np.arange(len(pixels)), count)
    number = np.arange(len(pixel)) - np.repeat(np.cumsum(count) - count, count)
    sides = (_FIRST[came, goes][pixel] + number) % 4
    points, rings = pixels[pixel] + _BEGIN[sides], rings[pixel]
    before, _ = _neighbours(rings)
    corner = sides != sides[before]
    return points[corner], sides[corner], rings[corner]


def _without_steps(points: Indices, sides: Indices, rings: Indices) -> tuple[Points, Indices]:
    """Replace each step of one pixel, between turns in opposite directions, by its middle.

    So an oblique edge, which is a staircase of pixels, becomes a line. A corner at the end of a straight edge of more
    than a pixel stays.

    Returns:
        The points, float64 [n, 2], and the index of the ring of each.
    """
    before, after = _neighbours(rings)
    turns = (sides - sides[before]) % 4  # 1 is a left turn, 3 a right turn
    alternating = turns != turns[after]
    step = alternating & (np.abs(points[after] - points).sum(1) == 1)
    cut = alternating & alternating[before] & (step | step[before])
    both = np.stack([points.astype(np.float64), (points + points[after]) / 2], axis=1).reshape(-1, 2)
    kept = np.stack([~cut, step], axis=1).ravel()
    return both[kept], np.repeat(rings, 2)[kept]


def _neighbours(rings: Indices) -> tuple[Indices, Indices]:
    """The index of the element before and after each element on its ring. `rings` are the ring of each, in order."""
    ends = np.flatnonzero(rings[1:] != rings[:-1])
    first, last = np.concatenate([[0], ends + 1]), np.concatenate([ends, [len(rings) - 1]])
    before, after = np.arange(len(rings)) - 1, np.arange(len(rings)) + 1
    before[first], after[last] = last, first
    return before, after


def _sizes(points: Indices, rings: Indices, count: int) -> npt.NDArray[np.float64]:
    """The area of each ring in pixels, by the shoelace formula, float64 [count]."""
    following = points[_neighbours(rings)[1]]
    crossed = points[:, 0] * following[:, 1] - points[:, 1] * following[:, 0]
    return np.abs(np.bincount(rings, crossed, count)) / 2


def _chosen(sizes: npt.NDArray[np.float64], parents: Indices, min_area: float) -> list[int]:
    """Choose the rings to keep, the largest first. A hole is kept only if the outline around it is."""
    order = np.argsort(-sizes, kind="stable")
    parts = order[parents[order] < 0]
    large = (sizes >= min_area) | (np.arange(len(sizes)) == parts[0])
    kept = order[large[order]][:MOST]
    there = set(kept.tolist())
    return [ring for ring in kept.tolist() if parents[ring] < 0 or parents[ring] in there]


def _simplified(line: Points) -> Points:
    simple = cv2.approxPolyDP(line.astype(np.float32), _WITHIN, closed=True)
    return simple.reshape(-1, 2).astype(np.float64) if len(simple) >= 3 else line


def _joined(line: Points, holes: list[Points]) -> Points:
    """Join an outline and its holes to one polygon, by lines from near points of the outline to the holes."""
    x, y = np.ascontiguousarray(line[:, 0]), np.ascontiguousarray(line[:, 1])
    detours = []
    for hole in holes:
        here = int(((x - hole[0, 0]) ** 2 + (y - hole[0, 1]) ** 2).argmin())
        there = int(((hole - line[here]) ** 2).sum(1).argmin())
        detours.append((here, np.concatenate([hole[there:], hole[: there + 1], line[here : here + 1]])))
    pieces, done = [], 0
    for here, detour in sorted(detours, key=lambda one: one[0]):
        pieces += [line[done : here + 1], detour]
        done = here + 1
    return np.concatenate([*pieces, line[done:]])
