"""Computes which part of an image is visible in the graph's input, and where it lies there.

`resize` uses it on the way into the graph; `masks`, `instances` and `activation` on the way back to the image.
"""

import math
from typing import NamedTuple

from zoo.recipe import Placement


class Span(NamedTuple):
    """A part of an image along one axis, which is resampled.

    Attributes:
        start, end: the part, in pixels of the image; they may lie within a pixel.
        length: how many pixels it is resampled to.
    """

    start: float
    end: float
    length: int

    @property
    def scale(self) -> float:
        """Pixels of the image per resampled pixel."""
        return (self.end - self.start) / self.length

    def part(self, first: int, last: int) -> "Span":
        """The part that becomes the resampled pixels `first` to `last`, without `last`."""
        return Span(self.start + first * self.scale, self.start + last * self.scale, last - first)

    def mirrored(self, side: int) -> "Span":
        """The same part, counted from the other end of the axis, which has `side` pixels."""
        return Span(side - self.end, side - self.start, self.length)

    def reach(self, support: float, side: int) -> tuple[int, int]:
        """The pixels of the image that a resampling kernel reads.

        Args:
            support: half of the kernel's width: in pixels of the image when enlarging, in resampled pixels otherwise.
            side: length of the axis, in pixels of the image.

        Returns:
            The first pixel, and the one after the last.
        """
        margin = support * max(1.0, self.scale)
        return max(0, math.floor(self.start - margin)), min(side, math.ceil(self.end + margin))


class View(NamedTuple):
    """The part of an image that is visible in the graph's input.

    Attributes:
        left, top: its corner in the input, in pixels of the input.
        x, y: the part along each axis, in pixels of the upright image, and its length in the input.
    """

    left: int
    top: int
    x: Span
    y: Span

    @property
    def slices(self) -> tuple[slice, slice]:
        """Its rows and columns in an array [H, W, ...] of the size of the graph's input."""
        return slice(self.top, self.top + self.y.length), slice(self.left, self.left + self.x.length)


def view(where: Placement, width: int, height: int) -> View:
    """Find the part of an image that is visible in an input of `width` x `height` pixels.

    It is the whole image, unless the recipe crops it.
    """
    left, x = _axis(where.width, where.scale_x, where.offset_x, width)
    top, y = _axis(where.height, where.scale_y, where.offset_y, height)
    return View(left, top, x, y)


def whole_pixels(start: float, end: float, side: int) -> tuple[int, int]:
    """Round a part of an axis of `side` pixels to whole pixels, at least one.

    Returns:
        The first pixel, and the one after the last.
    """
    first = min(round(start), side - 1)
    return first, max(first + 1, round(end))


def _axis(side: int, scale: float, offset: float, length: int) -> tuple[int, Span]:
    start, end = max(0.0, -offset / scale), min(float(side), (length - offset) / scale)
    first = round(start * scale + offset)
    return first, Span(start, end, round(end * scale + offset) - first)
