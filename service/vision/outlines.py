"""The outlines of a mask as polygons along the outer edges of its pixels, with its holes. Called by `masks`.

A list of polygons is read as their union, so a hole cannot be a polygon of its own. It is joined to its outline by a
line there and back, which covers nothing: pycocotools, canvases and the shoelace formula leave the hole out.

Pixels belong together where they touch at a corner; OpenCV walks round them, through their centres, in one direction:
the outside is at the right hand, so holes are walked round the other way.
"""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

MOST = 1000
"""Most outlines and holes of one mask; further ones, the smallest, are left out."""
# Simplified by less than half of the width of the thinnest line, 1 / sqrt(2) for one that runs diagonally: it stays.
_WITHIN = 0.25
# Changes along the rows of a mask from which it is cleaned of its smaller parts before it is walked round. OpenCV needs
# many seconds for hundreds of thousands of outlines.
_NOISE = 50_000

# Directions are numbered anticlockwise as they are seen: 0 east, 1 north-east, 2 north, ..., 7 south-east. 8: none.
_DIRECTION = np.array([3, 2, 1, 4, 8, 0, 5, 6, 7])  # by 3 * (dy + 1) + dx + 1
# Where the free side at the east, north, west and south of a pixel begins, when walked with the outside at the right.
_BEGIN = np.array([[1, 1], [1, 0], [0, 0], [0, 1]])


def _free_sides() -> tuple[Indices, Indices]:
    """How many sides of a pixel are free and which is the first, by the directions that led to it and lead on.

    The free ones are passed when turning, at the right hand, from where one came from to where one goes.
    """
    count, first = np.zeros((9, 9), np.int64), np.zeros((9, 9), np.int64)
    for came in range(8):
        for goes in range(8):
            turn = [(came + 5 + i) % 8 for i in range((goes - came - 5) % 8)]
            sides = [direction // 2 for direction in turn if direction % 2 == 0]
            count[came, goes], first[came, goes] = len(sides), sides[0] if sides else 0
    count[8, 8] = 4  # a single pixel
    return count, first


_COUNT, _FIRST = _free_sides()


def outlines(mask: npt.NDArray[np.uint8], speck: float = 0.0) -> list[Points]:
    """Trace a mask.

    The polygons follow the edges of the pixels exactly where these are straight for more than a pixel, cut stairs of
    single pixels in their middle, and are then simplified within a quarter of a pixel. So pixels whose eight neighbours
    are like them are on the right side, and nearly all of the others.

    Args:
        mask: uint8 [h, w], 0 or 255.
        speck: parts and holes of fewer pixels are left out; the largest part always stays.

    Returns:
        Polygons [n, 2] of x and y, n >= 3, the largest first. Pixel (column 0, row 0) is the square from 0, 0 to 1, 1.
    """
    found, family = cv2.findContours(_without_noise(mask), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if not found:
        return []
    parents: Indices = family[0, :, 3].astype(np.int64)
    points, sides, rings = _edges(found)
    kept = _chosen(_sizes(points, rings, len(found)), parents, speck)
    chosen = np.zeros(len(found), np.bool_)
    chosen[kept] = True
    inside = chosen[rings]
    line, of = _without_stairs(points[inside], sides[inside], rings[inside])
    lines = np.split(line, np.flatnonzero(of[1:] != of[:-1]) + 1)
    simple = {ring: _simplified(line) for ring, line in zip(np.flatnonzero(chosen).tolist(), lines, strict=True)}
    holes: dict[int, list[Points]] = {}
    for ring in kept:
        if parents[ring] >= 0:
            holes.setdefault(int(parents[ring]), []).append(simple[ring])
    return [_bridged(simple[ring], holes.get(ring, [])) for ring in kept if parents[ring] < 0]


def _without_noise(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A mask with its largest parts and holes only, where it is so noisy that walking round all would take long."""
    if np.count_nonzero(mask[:, 1:] != mask[:, :-1]) <= _NOISE:
        return mask
    # A border outside, so that all that reaches the mask's edge is one part: the outside, which is no hole.
    mask = np.pad(mask, 1)
    for value, connectivity in ((255, 8), (0, 4)):
        part = (mask == value).view(np.uint8)
        _, labels, statistics, _ = cv2.connectedComponentsWithStats(part, connectivity=connectivity)
        sizes = statistics[:, cv2.CC_STAT_AREA]
        sizes[0] = sizes[labels[0, 0]] = mask.size  # what is not of this value, and the outside
        small = np.zeros(len(sizes), np.bool_)
        small[np.argsort(-sizes, kind="stable")[MOST + 1 :]] = True
        mask[small[labels]] = 255 - value
    return mask[1:-1, 1:-1].copy()


def _edges(found: Any) -> tuple[Indices, Indices, Indices]:
    """The sides of pixels along every outline, in order, as long as they are straight.

    Returns:
        Where each begins, int [n, 2] of x and y; which side of the pixel it is, int [n], 0 to 3 as `_BEGIN` has them;
        and the index of its outline, int [n].
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


def _without_stairs(points: Indices, sides: Indices, rings: Indices) -> tuple[Points, Indices]:
    """Cut stairs: a step of one pixel, between turns in opposite directions, becomes its middle.

    So a slanting edge, which is a stair in pixels, becomes a line that runs between the pixels' centres. A corner at
    the end of a straight part stays.

    Returns:
        The points [n, 2], and the index of each one's outline.
    """
    before, after = _neighbours(rings)
    turns = (sides - sides[before]) % 4  # 1 to one side, 3 to the other
    stair = turns != turns[after]
    step = stair & (np.abs(points[after] - points).sum(1) == 1)
    cut = stair & stair[before] & (step | step[before])
    both = np.stack([points.astype(np.float64), (points + points[after]) / 2], axis=1).reshape(-1, 2)
    kept = np.stack([~cut, step], axis=1).ravel()
    return both[kept], np.repeat(rings, 2)[kept]


def _neighbours(rings: Indices) -> tuple[Indices, Indices]:
    """The index before and after each of the elements of rings that lie one behind the other."""
    ends = np.flatnonzero(rings[1:] != rings[:-1])
    first, last = np.concatenate([[0], ends + 1]), np.concatenate([ends, [len(rings) - 1]])
    before, after = np.arange(len(rings)) - 1, np.arange(len(rings)) + 1
    before[first], after[last] = last, first
    return before, after


def _sizes(points: Indices, rings: Indices, count: int) -> npt.NDArray[np.float64]:
    """How many pixels each outline encloses, by the shoelace formula, float [count]."""
    following = points[_neighbours(rings)[1]]
    crossed = points[:, 0] * following[:, 1] - points[:, 1] * following[:, 0]
    return np.abs(np.bincount(rings, crossed, count)) / 2


def _chosen(sizes: npt.NDArray[np.float64], parents: Indices, speck: float) -> list[int]:
    """Indices of the outlines and holes that are kept, the largest first; a hole only with what it is in."""
    order = np.argsort(-sizes, kind="stable")
    parts = order[parents[order] < 0]
    large = (sizes >= speck) | (np.arange(len(sizes)) == parts[0])
    kept = order[large[order]][:MOST]
    there = set(kept.tolist())
    return [ring for ring in kept.tolist() if parents[ring] < 0 or parents[ring] in there]


def _simplified(line: Points) -> Points:
    simple = cv2.approxPolyDP(line.astype(np.float32), _WITHIN, closed=True)
    return simple.reshape(-1, 2).astype(np.float64) if len(simple) >= 3 else line


def _bridged(line: Points, holes: list[Points]) -> Points:
    """Lead an outline round its holes: from the point nearest to one round it, and back."""
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
