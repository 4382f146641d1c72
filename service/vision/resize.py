"""From an image's bytes to the graph's input, in the two ways that `ZOOSERVE_PIXELS` chooses from. The predictor's.

`exact` is the card's recipe to the bit: `zoo.recipe.apply_exact`, Pillow. `fast` comes out all but the same, in half
the time. `loadtests/decode_recipes.py` measures what it, and what ways that are quicker still, do to the answers.
"""

import numpy as np

from service.vision import resample
from service.vision.decode import EncodedImage, Pixels
from service.vision.geometry import view
from service.vision.size import MAX_PIXELS
from zoo.card import Recipe
from zoo.recipe import Placement, apply_exact, placement, scaled_size

# From so many source pixels per target pixel on, how chroma is interpolated hardly moves the answers.
_COARSE = 8.0


def prepare(
    data: bytes, recipe: Recipe, *, exact: bool, max_pixels: int = MAX_PIXELS, out: Pixels | None = None
) -> tuple[Pixels, Placement]:
    """Decode an image and resize it as a recipe says.

    Args:
        data: the image's file, of any format that `decode` reads.
        recipe: of the model.
        exact: Pillow's own resampling, at about twice the time. Where cykooz-resizer has no wheel it always is.
        max_pixels: larger images are refused.
        out: uint8 [recipe.height, recipe.width, 3] to write into, such as a row of a batch.

    Returns:
        The graph's input, uint8 [recipe.height, recipe.width, 3] RGB, and where the upright image lies in it.

    Raises:
        RequestError: `undecodable`, `not_an_image` or `too_large`.
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
    # Resampled as it is stored and turned afterwards, when it is small.
    x = seen.x.mirrored(encoded.width) if turn.flip_x else seen.x
    y = seen.y.mirrored(encoded.height) if turn.flip_y else seen.y
    if turn.transpose:
        x, y = y, x
    # Pillow 13 convolves the upright image along x first, unless it shrinks far more along y.
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
        out[:] = np.tile(np.array(recipe.pad, np.uint8), (recipe.width, 1))  # a whole row at a time: quicker
    out[seen.slices] = turn.array(resampled)
