"""Masks of single objects, put together from prototypes at the original image's size. Called by `tasks.instances`.

The method is YOLACT's (Bolya et al. 2019, section 3.3): a network answers M prototypes for the whole image and M
coefficients per object; the object is where the sigmoid of their weighted sum is over 0.5, within its box. A sigmoid
is over 0.5 where the sum itself is positive.
"""

import math
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
import numpy.typing as npt

from service.results import Box
from service.vision.geometry import Span, view, whole_pixels
from service.vision.masks import Frame, Opacity, binary
from zoo.recipe import Placement

# Sums become bytes before they are scaled up, 16 steps per unit: beyond +-8 the sigmoid has long been 0 or 1.
_STEPS = 16
_OUTSIDE = 127  # the last byte outside of a mask: a sum of 0, since 0.5 is not over 0.5


class _Axis(NamedTuple):
    """A box along one axis.

    Attributes:
        first, length: the image's pixels in it.
        cells: the prototypes' cells that they are interpolated from.
        shift: by how many cells those are moved, so that a cell begins where a pixel of the image does.
        shifted: how many cells that makes.
        skip: the image's pixels from that beginning to the box.
    """

    first: int
    length: int
    cells: slice
    shift: float
    shifted: int
    skip: int

    @property
    def kept(self) -> slice:
        """The box's part of what the cells become."""
        return slice(self.skip, self.skip + self.length)


def on_prototypes(where: Placement, size: tuple[int, int], shape: tuple[int, ...]) -> Placement:
    """Say where an image lies in the prototypes [M, h, w] of a graph.

    Args:
        where: it lies in the graph's input.
        size: height and width of that input.
        shape: of the prototypes; their last two dimensions cover the input.
    """
    x, y = shape[-1] / size[1], shape[-2] / size[0]
    return Placement(
        where.width, where.height, where.scale_x * x, where.scale_y * y, where.offset_x * x, where.offset_y * y
    )


def instance_mask(
    coefficients: npt.NDArray[np.float32], prototypes: npt.NDArray[np.float32], box: Box, where: Placement
) -> tuple[Opacity, Frame]:
    """Put an object's mask together: only in its box, and only from the prototypes there.

    The sum of the prototypes is interpolated linearly between their centres, at the centre of each of the image's
    pixels. That is where the exact outline is at the image's size; there is no stop at the size of the input.

    Args:
        coefficients: float32 [M], the object's.
        prototypes: float32 [M, h, w].
        box: the object's, xyxy in pixels of the image, rounded to whole ones here. What a crop cut off is not in it.
        where: the image lies in the prototypes, see `on_prototypes`.

    Returns:
        The mask, uint8 [rows, columns] of the image, 0 or 255, and where it lies in the image.
    """
    _, height, width = prototypes.shape
    seen = view(where, width, height)
    x = _axis(box[0], box[2], seen.x, where.width, where.scale_x, where.offset_x, width)
    y = _axis(box[1], box[3], seen.y, where.height, where.scale_y, where.offset_y, height)
    if x is None or y is None:
        return np.zeros((1, 1), np.uint8), Frame(0, 0, where.width, where.height)
    # Not by BLAS: its threads would be in the way of the other images'.
    sums = np.einsum("m,mhw->hw", coefficients, prototypes[:, y.cells, x.cells])
    # A resize cannot begin within a pixel, so the cells, which are few, are shifted first: by half a pixel at most.
    shift: Any = np.array([[1.0, 0.0, x.shift], [0.0, 1.0, y.shift]])
    shifted = cv2.warpAffine(
        sums,
        shift,
        (x.shifted, y.shifted),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    cells = np.ceil(np.clip(shifted * _STEPS + _OUTSIDE, 0, 255)).astype(np.uint8)
    scaled = cv2.resize(cells, None, fx=1 / where.scale_x, fy=1 / where.scale_y, interpolation=cv2.INTER_LINEAR)
    return binary(cast("Opacity", scaled[y.kept, x.kept])), Frame(x.first, y.first, where.width, where.height)


def _axis(start: float, end: float, seen: Span, side: int, scale: float, offset: float, cells: int) -> _Axis | None:
    """Place a box along one axis; None where the graph saw nothing of it."""
    start, end = max(start, seen.start), min(end, seen.end)
    if start >= end:
        return None
    first, last = whole_pixels(start, end, side)
    # Where the centres of the first and the last pixel lie, counted in cells from the centre of the first cell.
    nearest, furthest = ((pixel + 0.5) * scale + offset - 0.5 for pixel in (first, last - 1))
    begin = round((math.floor(nearest - scale / 2) - offset) / scale)  # the pixel that begins nearest to a cell's begin
    origin = begin * scale + offset
    count = math.floor(furthest - origin) + 2 + math.ceil(scale)
    low = min(max(math.floor(origin), 0), cells - 1)
    high = min(max(math.ceil(origin) + count, low + 1), cells)
    return _Axis(first, last - first, slice(low, high), origin - low, count, first - begin)
