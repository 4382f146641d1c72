"""A 12-megapixel photo with 60 small objects, composed of sample photos, so that it is known what is in it.

The tests compare what is found in it with what SAHI finds; `loadtests.tiles` sends it.
"""

import random
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from PIL import Image

from zoo import catalog

_CELL = (400, 500)  # pixels in which one object lies
_WIDTHS = (110, 170)  # pixels of the photos that are pasted
_FOUND = 0.5  # IoU from which on an object is found

Box = tuple[float, float, float, float]


class Known(NamedTuple):
    """An object: its label of COCO, and its box, xyxy in pixels."""

    label: str
    box: Box


# The object that each sample photo shows, with its box as shares of the photo's sides.
_PHOTOS = {
    "astronaut": Known("person", (0.054, 0.0, 0.787, 0.914)),
    "chelsea": Known("cat", (0.033, 0.0, 0.955, 0.973)),
    "coffee": Known("cup", (0.279, 0.037, 0.687, 0.728)),
}


def scene(seed: int = 0, columns: int = 10, rows: int = 6) -> tuple[Image.Image, list[Known]]:
    """Return an image, mode RGB, and the objects in it, each 40 to 160 pixels wide.

    Args:
        seed: of what lies where.
        columns: of objects; 400 pixels each.
        rows: of objects; 500 pixels each.
    """
    choose = random.Random(seed)  # noqa: S311 - no secret
    width, height = _CELL
    noise = np.random.default_rng(seed).normal(0, 3, (rows * height, columns * width, 3))
    image = Image.fromarray((np.array([124, 130, 118]) + noise).astype(np.uint8))
    known = []
    for number in range(columns * rows):
        name = choose.choice(sorted(_PHOTOS))
        photo = _read(name)
        scaled = choose.randint(*_WIDTHS)
        small = photo.resize((scaled, round(scaled * photo.height / photo.width)), Image.Resampling.LANCZOS)
        left = number % columns * width + choose.randint(0, width - small.width)
        top = number // columns * height + choose.randint(0, height - small.height)
        image.paste(small, (left, top))
        known.append(_at(name, left, top, small.width, small.height))
    return image, known


def large() -> tuple[Image.Image, list[Known]]:
    """Return an image of 4000 x 3000 pixels that shows one large object, a cat of nearly its size."""
    photo = _read("chelsea").resize((3600, 2400), Image.Resampling.BICUBIC)
    image = Image.new("RGB", (4000, 3000), (124, 130, 118))
    image.paste(photo, (200, 300))
    return image, [_at("chelsea", 200, 300, *photo.size)]


def recall(known: Iterable[Known], found: Iterable[Known]) -> float:
    """Return the share of the objects that were found: a box of the label with an IoU of at least 0.5."""
    left = list(found)
    known = list(known)
    hits = 0
    for each in known:
        best = max(
            (other for other in left if other.label == each.label), key=lambda other: iou(each, other), default=None
        )
        if best is not None and iou(each, best) >= _FOUND:
            left.remove(best)
            hits += 1
    return hits / len(known)


def iou(one: Known, other: Known) -> float:
    """Return the intersection over union of two objects' boxes."""
    (a0, b0, a1, b1), (c0, d0, c1, d1) = one.box, other.box
    shared = max(0.0, min(a1, c1) - max(a0, c0)) * max(0.0, min(b1, d1) - max(b0, d0))
    return shared / ((a1 - a0) * (b1 - b0) + (c1 - c0) * (d1 - d0) - shared)


def _read(name: str) -> Image.Image:
    with Image.open(catalog.sample(name)) as photo:
        return photo.convert("RGB")


def _at(name: str, left: int, top: int, width: int, height: int) -> Known:
    label, (x0, y0, x1, y1) = _PHOTOS[name]
    return Known(label, (left + x0 * width, top + y0 * height, left + x1 * width, top + y1 * height))
