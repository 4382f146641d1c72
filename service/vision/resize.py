"""Turns an image file into the graph's input. Called by the predictor. `ZOOSERVE_PIXELS` chooses one of two methods.

`exact` follows the card's recipe bit for bit, with Pillow (`zoo.recipe.apply_exact`). `fast` takes half the time; its
pixels differ by rounding only. `loadtests/results/decode_recipes.md` shows how `fast`, and faster methods, change the
answers.
"""

import numpy as np

from service.vision import resample
from service.vision.decode import EncodedImage, Pixels
from service.vision.geometry import view
from service.vision.size import MAX_PIXELS
from zoo.card import Recipe
from zoo.recipe import Placement, apply_exact, placement, scaled_size

# Source pixels per resampled pixel from which on the interpolation of chroma hardly changes the answers.
_COARSE = 8.0


def prepare(
    data: bytes, recipe: Recipe, *, exact: bool, max_pixels: int = MAX_PIXELS, out: Pixels | None = None
) -> tuple[Pixels, Placement]:
    """Decode an image and resize it as the model's recipe says.

    Args:
        data: an image file of any format that `decode` reads.
        recipe: of the model.
        exact: resample with Pillow, which takes about twice the time. Where cykooz-resizer is not installed, Pillow is
            always used.
        max_pixels: larger images are refused.
        out: uint8 [recipe.height, recipe.width, 3] to write into, such as a row of a batch.

    Returns:
        The graph's input, uint8 [recipe.height, recipe.width, 3] RGB, and the placement of the upright image in it.

    Raises:
        RequestError: `undecodable`, `not_an_image` or `too_large`, as for `EncodedImage`.
    """
    encoded = EncodedImage(data, max_pixels)
    where = placement(recipe, encoded.width, encoded.height)
    if out is None:
        out = np.empty((recipe.height, recipe.width, 3), np.uint8)
    if exact or not resample.AVAILABLE:
        out[:] = apply_exact(recipe, encoded.image())
    else:
        _fill(out, encoded, recipe, where)
    return out, where


def _fill(out: Pixels, encoded: EncodedImage, recipe: Recipe, where: Placement) -> None:
    seen = view(where, recipe.width, recipe.height)
    turn = encoded.turn
    # The stored image is resampled first and turned afterwards, when it is smaller.
    x = seen.x.mirrored(encoded.width) if turn.flip_x else seen.x
    y = seen.y.mirrored(encoded.height) if turn.flip_y else seen.y
    if turn.transpose:
        x, y = y, x
    # As Pillow 13: first along x of the upright image, unless it shrinks much more along y.
    width, height = scaled_size(recipe, encoded.width, encoded.height)
    vertical_first = encoded.height - height > max(0, 2 * (encoded.width - width))
    resampled = resample.resample(
        encoded.stored(fast_chroma=min(x.scale, y.scale) >= _COARSE),
        x,
        y,
        recipe.interpolation,
        vertical_first=vertical_first != turn.transpose,
    )
    if resampled.size < out.size:
        out[:] = np.tile(np.array(recipe.pad, np.uint8), (recipe.width, 1))  # copying whole rows is faster
    out[seen.slices] = turn.array(resampled)
