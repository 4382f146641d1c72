"""Turns a stored image upright, as its EXIF orientation (1 to 8) says. Called by `decode` and `resize`."""

from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]


class Turn:
    """The operations that turn a stored image upright.

    Args:
        orientation: of EXIF, 1 (upright) to 8.

    Attributes:
        transpose: whether rows and columns are exchanged, before the flips.
        flip_x: whether left and right are exchanged.
        flip_y: whether top and bottom are exchanged.
    """

    def __init__(self, orientation: int) -> None:
        self.transpose = orientation >= 5
        self.flip_x = orientation in (2, 3, 6, 7)
        self.flip_y = orientation in (3, 4, 7, 8)
        self._pillow = _TRANSPOSITIONS.get(orientation)

    def array(self, pixels: Pixels) -> Pixels:
        """Turn stored pixels upright, uint8 [h, w, 3]."""
        if self.transpose:
            pixels = cast("Pixels", cv2.transpose(pixels))
        if self.flip_x or self.flip_y:
            axis = -1 if self.flip_x and self.flip_y else int(self.flip_x)
            pixels = cast("Pixels", cv2.flip(pixels, axis))
        return pixels

    def image(self, image: Image.Image) -> Image.Image:
        """Turn a stored Pillow image upright."""
        return image if self._pillow is None else image.transpose(self._pillow)


_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
