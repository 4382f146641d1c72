"""Computes the masks of single objects from prototypes, in pixels of the original image. Called by `tasks.instances`.

The method is that of YOLACT (Bolya et al. 2019, section 3.3). The graph returns M prototypes for the whole image, and M
coefficients for each object. The mask of an object is where, within its box, the sigmoid of the sum of the prototypes
weighted with its coefficients exceeds 0.5, that is, where the sum is positive.
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

# Sums are quantised to bytes before they are enlarged, 16 steps per unit. Beyond +-8 the sigmoid is nearly 0 or 1.
_STEPS = 16
_OUTSIDE = 127  # the byte of a sum of 0, the largest one outside of a mask


class _Axis(NamedTuple):
    """A box along one axis, and the cells (the pixels of the prototypes) from which it is interpolated.

    Attributes:
        first, length: the box, in pixels of the image.
        cells: the cells that are needed.
        shift: offset in cells by which they are resampled, so that the first one starts at the edge of a pixel of the
            image.
        shifted: how many cells there are afterwards.
        skip: pixels of the image from the start of the first cell to the box.
    """

    first: int
    length: int
    cells: slice
    shift: float
    shifted: int
    skip: int

    @property
    def kept(self) -> slice:
        """The part of the enlarged cells that lies in the box."""
        return slice(self.skip, self.skip + self.length)


def on_prototypes(where: Placement, size: tuple[int, int], shape: tuple[int, ...]) -> Placement:
    """Compute the placement of an image in the prototypes of a graph.

    Args:
        where: placement of the image in the graph's input.
        size: height and width of that input, in pixels.
        shape: of the prototypes, (M, h, w). They cover the same area as the input.
    """
    x, y = shape[-1] / size[1], shape[-2] / size[0]
    return Placement(
        where.width, where.height, where.scale_x * x, where.scale_y * y, where.offset_x * x, where.offset_y * y
    )


def instance_mask(
    coefficients: npt.NDArray[np.float32], prototypes: npt.NDArray[np.float32], box: Box, where: Placement
) -> tuple[Opacity, Frame]:
    """Compute the mask of one object, only within its box.

    The weighted sum of the prototypes is interpolated linearly at the centre of each pixel of the original image. It is
    enlarged in one step, without an intermediate mask of the size of the graph's input.

    Args:
        coefficients: of the object, float32 [M].
        prototypes: float32 [M, h, w].
        box: of the object, xyxy in pixels of the original image. It is rounded to whole pixels and clipped to the part
            of the image that is visible in the graph's input.
        where: placement of the image in the prototypes, from `on_prototypes`.

    Returns:
        The mask in the box, uint8 [rows, columns], 0 or 255, in pixels of the original image, and its position there.
    """
    _, height, width = prototypes.shape
    seen = view(where, width, height)
    x = _axis(box[0], box[2], seen.x, where.width, where.scale_x, where.offset_x, width)
    y = _axis(box[1], box[3], seen.y, where.height, where.scale_y, where.offset_y, height)
    if x is None or y is None:
        return np.zeros((1, 1), np.uint8), Frame(0, 0, where.width, where.height)
    # einsum does not use BLAS, whose threads would compete with the engine's.
    sums = np.einsum("m,mhw->hw", coefficients, prototypes[:, y.cells, x.cells])
    # `cv2.resize` starts at the edge of a cell, so the cells, which are few, are shifted first.
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
    """Place a box along one axis; None if no part of it is visible in the graph's input."""
    start, end = max(start, seen.start), min(end, seen.end)
    if start >= end:
        return None
    first, last = whole_pixels(start, end, side)
    # The centres of the first and the last pixel, in cells from the centre of the first cell.
    nearest, furthest = ((pixel + 0.5) * scale + offset - 0.5 for pixel in (first, last - 1))
    # The pixel whose start is nearest to that of a cell.
    begin = round((math.floor(nearest - scale / 2) - offset) / scale)
    origin = begin * scale + offset
    count = math.floor(furthest - origin) + 2 + math.ceil(scale)
    low = min(max(math.floor(origin), 0), cells - 1)
    high = min(max(math.ceil(origin) + count, low + 1), cells)
    return _Axis(first, last - first, slice(low, high), origin - low, count, first - begin)
