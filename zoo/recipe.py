"""The exact implementation of a card's recipe: images are prepared as the checkpoint's own library does it.

`export` computes parity and golden answers with it. `service` uses it in exact mode, and its tests compare with it.
"""

import math
from typing import NamedTuple, cast

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from zoo.card import Recipe

_RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_LARGEST = 1 << 22  # pixels of a scaled image that is resampled whole before it is cut


class Placement(NamedTuple):
    """The position and scale of an image in the graph's input.

    A point (x, y) of the image is at (x * scale_x + offset_x, y * scale_y + offset_y) of the input, in pixels, with
    pixel centres at half-integers. `width` and `height` are the image's own. `lanczos` says whether the opacity of a
    salient object is resized to the image by Pillow's Lanczos filter, and not linearly. `one_scale` takes the place of
    both scales where boxes return to the image, if it is not 0.
    """

    width: int
    height: int
    scale_x: float
    scale_y: float
    offset_x: float
    offset_y: float
    lanczos: bool = False
    one_scale: float = 0.0

    @property
    def box_scale(self) -> tuple[float, float]:
        """The scales (x, y) by which what was found returns to the image."""
        return (self.one_scale or self.scale_x, self.one_scale or self.scale_y)


def placement(recipe: Recipe, width: int, height: int) -> Placement:
    """Return the placement of an image of `width` x `height` pixels in the input of `recipe`.

    `crop` follows torchvision's `Resize(short_side)` and `CenterCrop`, `letterbox` centres the scaled image, and
    `letterbox_top_left` pads at the right and at the bottom only.
    """
    if recipe.resize == "stretch":
        return Placement(width, height, recipe.width / width, recipe.height / height, 0.0, 0.0)
    new_width, new_height = scaled_size(recipe, width, height)
    one_scale = min(recipe.width / width, recipe.height / height) if recipe.one_scale else 0.0
    if recipe.resize == "letterbox_top_left":
        return Placement(width, height, new_width / width, new_height / height, 0.0, 0.0, one_scale=one_scale)
    if recipe.odd_padding == "after":  # Ultralytics: round(d - 0.1) before the image, round(d + 0.1) after it
        left, top = int((recipe.width - new_width) / 2), int((recipe.height - new_height) / 2)
    else:  # CenterCrop's offset, with torchvision's rounding; the same arithmetic centres the letterbox.
        left, top = round((recipe.width - new_width) / 2), round((recipe.height - new_height) / 2)
    scale_x, scale_y = new_width / width, new_height / height
    return Placement(width, height, scale_x, scale_y, float(left), float(top), one_scale=one_scale)


def scaled_size(recipe: Recipe, width: int, height: int) -> tuple[int, int]:
    """Return width and height, in pixels, to which the whole image is resampled before it is cropped or padded."""
    if recipe.resize == "stretch":
        return recipe.width, recipe.height
    if recipe.short_side is not None:
        if width <= height:
            return recipe.short_side, max(1, int(recipe.short_side * height / width))
        return max(1, int(recipe.short_side * width / height)), recipe.short_side
    scale = min(recipe.width / width, recipe.height / height)
    whole = math.floor if recipe.rounding == "floor" else round
    return max(1, whole(width * scale)), max(1, whole(height * scale))


def apply_exact(recipe: Recipe, image: Image.Image) -> npt.NDArray[np.uint8]:
    """Convert an image (mode RGB) to the graph's input, uint8 [height, width, 3]."""
    where = placement(recipe, *image.size)
    left, top = int(where.offset_x), int(where.offset_y)
    new_width, new_height = scaled_size(recipe, *image.size)
    if recipe.resampling != "pillow":
        return on_canvas(recipe, resample(recipe, np.asarray(image), new_width, new_height), left, top)
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
    return on_canvas(recipe, np.asarray(scaled), left, top)


def on_canvas(recipe: Recipe, scaled: npt.NDArray[np.uint8], left: int, top: int) -> npt.NDArray[np.uint8]:
    """Put a scaled image, uint8 [h, w, 3], on a canvas of the recipe's size and pad colour, unless it fills it."""
    rows, columns = scaled.shape[:2]
    if (rows, columns) == (recipe.height, recipe.width):
        return scaled
    canvas = np.empty((recipe.height, recipe.width, 3), np.uint8)
    canvas[:] = recipe.pad
    canvas[top : top + rows, left : left + columns] = scaled
    return canvas


def resample(recipe: Recipe, image: npt.NDArray[np.uint8], width: int, height: int) -> npt.NDArray[np.uint8]:
    """Resample a whole image without antialiasing, as the recipe's library (`opencv`, `torch` or `darknet`) does.

    Args:
        recipe: gives the library and the interpolation.
        image: uint8 [h, w, 3].
        width: of the result, in pixels.
        height: of the result, in pixels.

    Returns:
        uint8 [height, width, 3]. `torch` and `darknet` compute in floats, which are rounded here.
    """
    if image.shape[:2] == (height, width):
        return image
    if recipe.resampling == "opencv":
        kind = cv2.INTER_CUBIC if recipe.interpolation == "bicubic" else cv2.INTER_LINEAR
        return cast("npt.NDArray[np.uint8]", cv2.resize(image, (width, height), interpolation=kind))
    corners = recipe.resampling == "darknet"
    top, bottom, down = _neighbours(image.shape[0], height, corners=corners)
    left, right, across = _neighbours(image.shape[1], width, corners=corners)
    across = across[:, None]
    # Only the four neighbours of each result are read, so the time does not grow with the image.
    upper = image[np.ix_(top, left)] * (1 - across) + image[np.ix_(top, right)] * across
    lower = image[np.ix_(bottom, left)] * (1 - across) + image[np.ix_(bottom, right)] * across
    down = down[:, None, None]
    mixed: npt.NDArray[np.uint8] = np.rint(upper * (1 - down) + lower * down).astype(np.uint8)
    return mixed


def _neighbours(
    source: int, target: int, *, corners: bool
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """For `target` samples along an axis of `source` pixels: both neighbours of each, and the second one's weight."""
    if corners:
        at = np.arange(target) * ((source - 1) / max(1, target - 1))
    else:
        at = np.maximum((np.arange(target) + 0.5) * (source / target) - 0.5, 0.0)
    first = np.minimum(np.floor(at).astype(np.intp), source - 1)
    return first, np.minimum(first + 1, source - 1), (at - first).astype(np.float32)
