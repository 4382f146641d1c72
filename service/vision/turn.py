"""From a stored image to the upright one, after its EXIF orientation (1 to 8). Called by `decode` and `resize`."""

from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]


class Turn:
    """How a stored image becomes the upright one, after its EXIF orientation (1 to 8).

    Attributes:
        transpose: rows and columns change places, before the flips.
        flip_x: left and right change places.
        flip_y: top and bottom change places.
    """

    def __init__(self, orientation: int) -> None:
        self.transpose = orientation >= 5
        self.flip_x = orientation in (2, 3, 6, 7)
        self.flip_y = orientation in (3, 4, 7, 8)
        self._pillow = _TRANSPOSITIONS.get(orientation)

    def array(self, pixels: Pixels) -> Pixels:
        """Turn stored pixels [h, w, 3] upright."""
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
