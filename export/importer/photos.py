"""The photos on which `zooserve add` tries a network: four of the samples, and those of the user."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from export.photos import PARITY_PHOTOS, open_upright
from zoo import catalog
from zoo.card import Recipe
from zoo.errors import ExportError
from zoo.recipe import apply_exact


def open_photos(photos: Sequence[Path]) -> list[Image.Image]:
    """Open the sample photos and `photos`, upright, mode RGB.

    Raises:
        ExportError: one is no image that can be read.
    """
    return [_open(path) for path in (*(catalog.sample(name) for name in PARITY_PHOTOS), *photos)]


def inputs(recipe: Recipe, photos: Sequence[Path]) -> npt.NDArray[np.uint8]:
    """Return the sample photos and `photos` after a recipe, uint8 [M, H, W, 3]."""
    return np.stack([np.asarray(apply_exact(recipe, photo)) for photo in open_photos(photos)])


def _open(path: Path) -> Image.Image:
    try:
        return open_upright(path)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ExportError(f"{path}: not an image that can be read: {error}") from error
