"""Reads the forms of `segmentation` in COCO's files, strictly. Called by `coco`.

pycocotools takes two points for a box, fails on an empty list, and accepts run lengths of another size.
"""

from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco
from zooserve_client import rle

from evaluation.dataset import DataError

Box = tuple[float, float, float, float]


class Outline(NamedTuple):
    """The outline of an object: polygons [x0, y0, x1, y1, ...], or run lengths with the size of their image.

    Attributes:
        polygons: each of at least three points, in pixels of the image; there may be none.
        counts: run lengths in column-major order, beginning outside, compressed (a text) or not.
        size: height and width of the run lengths' image, in pixels.
    """

    polygons: list[list[float]]
    counts: list[int] | str | None = None
    size: tuple[int, int] | None = None

    @property
    def box(self) -> Box | None:
        """The box around the polygons: x, y, width, height in pixels. None for run lengths."""
        if self.counts is not None:
            return None
        points = np.array([*chain.from_iterable(self.polygons)] or [0.0, 0.0]).reshape(-1, 2)
        (x0, y0), (x1, y1) = points.min(0).tolist(), points.max(0).tolist()
        return x0, y0, x1 - x0, y1 - y0

    def encode(self, width: int, height: int) -> dict[str, Any]:
        """Return compressed run lengths for an image of `width` x `height` pixels, `{"size": ..., "counts": bytes}`.

        Raises:
            DataError: run lengths are for an image of another size, or invalid.
        """
        empty = {"size": [height, width], "counts": [height * width]}
        if self.counts is None:
            if not self.polygons:
                return dict(coco.frPyObjects(empty, height, width))
            furthest = max(abs(value) for polygon in self.polygons for value in polygon)
            if furthest > 3 * max(width, height):  # pycocotools' time grows with the length of the lines
                raise DataError(f"a polygon reaches {furthest:g} pixels far in an image of {width} x {height}")
            return dict(coco.merge(coco.frPyObjects(self.polygons, height, width)))
        if self.size != (height, width):
            raise DataError(f"run lengths are of {self.size} pixels (height, width), the image is {width} x {height}")
        if isinstance(self.counts, str):
            try:
                rle.decode(self.counts, height, width)
            except ValueError as error:
                raise DataError(str(error)) from error
            return {"size": [height, width], "counts": self.counts.encode("ascii")}
        if sum(self.counts) != height * width:
            raise DataError(f"run lengths cover {sum(self.counts)} pixels, expected {height} x {width}")
        return dict(coco.frPyObjects(empty | {"counts": self.counts}, height, width))


def read_outline(given: Any, where: str) -> Outline | None:
    """Read a `segmentation`: polygons, one polygon, or run lengths, compressed or not. Returns None if it is empty.

    Polygons of one or two points have no area and are left out.

    Args:
        given: the value from JSON.
        where: its place in the file, for messages.

    Raises:
        DataError: it has none of these forms.
    """
    if given is None or given in ({}, []):
        return None
    if isinstance(given, dict):
        counts, size = given.get("counts"), given.get("size")
        whole = isinstance(counts, list) and all(type(run) is int and run >= 0 for run in counts)
        if not (whole or isinstance(counts, str)) or not isinstance(size, list) or not _are_numbers(size, 2):
            raise DataError(f"{where}: run lengths need `size` [height, width] and `counts`, whole numbers or a text")
        return Outline([], counts, (int(size[0]), int(size[1])))
    polygons = [given] if _are_numbers(given) else given
    if not isinstance(polygons, list) or not all(_are_numbers(one) and len(one) % 2 == 0 for one in polygons):
        raise DataError(f"{where}: a `segmentation` is a list of polygons [x0, y0, x1, y1, ...], or run lengths")
    return Outline([[float(value) for value in one] for one in polygons if len(one) >= 6])


def _are_numbers(value: Any, count: int | None = None) -> bool:
    return (
        isinstance(value, list)
        and bool(value or not count)
        and all(type(one) in (int, float) for one in value)
        and (count is None or len(value) == count)
    )
