"""Which part of an image is seen in the graph's input, and where.

Called by `resize` (in), and by `masks` and `instances` (out).
"""

import math
from typing import NamedTuple

from zoo.recipe import Placement


class Span(NamedTuple):
    """What is kept of an image along one axis, from `start` to `end` in pixels, and how many pixels it becomes."""

    start: float
    end: float
    length: int

    @property
    def scale(self) -> float:
        """Pixels of the image per pixel that they become."""
        return (self.end - self.start) / self.length

    def part(self, first: int, last: int) -> "Span":
        """What becomes the pixels from `first` to before `last`."""
        return Span(self.start + first * self.scale, self.start + last * self.scale, last - first)

    def mirrored(self, side: int) -> "Span":
        """The same part of an axis of `side` pixels that is counted from its other end."""
        return Span(side - self.end, side - self.start, self.length)

    def reach(self, support: float, side: int) -> tuple[int, int]:
        """The pixels, of `side`, that a kernel reads: from the first to before the second.

        Args:
            support: how far the kernel reaches, in pixels of the coarser of the two images.
            side: of the image, in pixels.
        """
        margin = support * max(1.0, self.scale)
        return max(0, math.floor(self.start - margin)), min(side, math.ceil(self.end + margin))


class View(NamedTuple):
    """The part of an image that is seen in the graph's input.

    Attributes:
        left, top: where it begins in the input, in pixels.
        x, y: which part it is, in pixels of the upright image, and its size in the input.
    """

    left: int
    top: int
    x: Span
    y: Span

    @property
    def slices(self) -> tuple[slice, slice]:
        """Its rows and columns in an array [H, W, ...] of the input's size."""
        return slice(self.top, self.top + self.y.length), slice(self.left, self.left + self.x.length)


def view(where: Placement, width: int, height: int) -> View:
    """Find what of an image is seen in an input of `width` x `height` pixels: all of it, unless it is cropped."""
    left, x = _axis(where.width, where.scale_x, where.offset_x, width)
    top, y = _axis(where.height, where.scale_y, where.offset_y, height)
    return View(left, top, x, y)


def whole_pixels(start: float, end: float, side: int) -> tuple[int, int]:
    """Round a part of an axis of `side` pixels to whole pixels: from the first to before the second, at least one."""
    first = min(round(start), side - 1)
    return first, max(first + 1, round(end))


def _axis(side: int, scale: float, offset: float, length: int) -> tuple[int, Span]:
    start, end = max(0.0, -offset / scale), min(float(side), (length - offset) / scale)
    first = round(start * scale + offset)
    return first, Span(start, end, round(end * scale + offset) - first)
