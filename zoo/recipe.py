"""The exact implementation of a card's recipe: Pillow's antialiased resampling, as the checkpoints were evaluated.

`export` computes parity and golden answers with it. `service` uses it in exact mode, and its tests compare with it.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from zoo.card import Recipe

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_LARGEST = 1 << 22  # pixels of a scaled image that is resampled whole before it is cut


class Placement(NamedTuple):
    """The position and scale of an image in the graph's input.

    A point (x, y) of the image is at (x * scale_x + offset_x, y * scale_y + offset_y) of the input, in pixels, with
    pixel centres at half-integers. `width` and `height` are the image's own.
    """

    width: int
    height: int
    scale_x: float
    scale_y: float
    offset_x: float
    offset_y: float


def placement(recipe: Recipe, width: int, height: int) -> Placement:
    """Return the placement of an image of `width` x `height` pixels in the input of `recipe`.

    `crop` follows torchvision's `Resize(short_side)` and `CenterCrop`, `letterbox` centres the scaled image, and
    `letterbox_top_left` pads at the right and at the bottom only.
    """
    if recipe.resize == "stretch":
        return Placement(width, height, recipe.width / width, recipe.height / height, 0.0, 0.0)
    new_width, new_height = scaled_size(recipe, width, height)
    if recipe.resize == "letterbox_top_left":
        return Placement(width, height, new_width / width, new_height / height, 0.0, 0.0)
    # CenterCrop's offset, with torchvision's rounding; the same arithmetic centres the letterbox.
    left, top = round((recipe.width - new_width) / 2), round((recipe.height - new_height) / 2)
    return Placement(width, height, new_width / width, new_height / height, float(left), float(top))


def scaled_size(recipe: Recipe, width: int, height: int) -> tuple[int, int]:
    """Return width and height, in pixels, to which the whole image is resampled before it is cropped or padded."""
    if recipe.resize == "stretch":
        return recipe.width, recipe.height
    if recipe.short_side is not None:
        if width <= height:
            return recipe.short_side, max(1, int(recipe.short_side * height / width))
        return max(1, int(recipe.short_side * width / height)), recipe.short_side
    scale = min(recipe.width / width, recipe.height / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def apply_exact(recipe: Recipe, image: Image.Image) -> npt.NDArray[np.uint8]:
    """Convert an image (mode RGB) to the graph's input, uint8 [height, width, 3]."""
    where = placement(recipe, *image.size)
    left, top = int(where.offset_x), int(where.offset_y)
    new_width, new_height = scaled_size(recipe, *image.size)
    resampling = _RESAMPLING[recipe.interpolation]
    if recipe.resize == "crop" and new_width * new_height > _LARGEST:
        # A 1 x 4000 image would become 256 x 1024000, so only the part that is kept is resampled. `box` is that part in
        # source coordinates. The filter is the same, but Pillow may swap its two passes, which changes a few pixels by
        # up to 2 grey levels; so this is not done for other images.
        box = (
            max(0.0, -left / where.scale_x),
            max(0.0, -top / where.scale_y),
            min(float(image.width), (recipe.width - left) / where.scale_x),
            min(float(image.height), (recipe.height - top) / where.scale_y),
        )
        return np.asarray(image.resize((recipe.width, recipe.height), resampling, box=box))
    scaled = image.resize((new_width, new_height), resampling)
    if recipe.resize == "crop":
        return np.asarray(scaled.crop((-left, -top, recipe.width - left, recipe.height - top)))
    resized = np.asarray(scaled)
    if recipe.resize == "stretch":
        return resized
    canvas = np.empty((recipe.height, recipe.width, 3), np.uint8)
    canvas[:] = recipe.pad
    canvas[top : top + new_height, left : left + new_width] = resized
    return canvas
