"""Turns decoded pixels into upright RGB of 8 bits: colours, bits per value, orientation."""

from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from service.errors import Reason, RequestError

Pixels = npt.NDArray[np.uint8]
Values = npt.NDArray[np.uint16]


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a decoded image, or a part of one, from any mode to RGB.

    Transparent pixels are blended with white, as viewers do. (Pillow's `convert("RGB")` would show the colours that are
    stored under transparent pixels.) Of 16 bits per value the upper 8 are kept. (Pillow would clip grey levels to 255.)

    Raises:
        RequestError: `undecodable`: Pillow cannot convert the image's colours.
    """
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    try:
        if image.has_transparency_data:
            above = image.convert("RGBA")
            image = Image.new("RGB", image.size, "white")
            image.paste(above, mask=above)
        return image.convert("RGB")
    except ValueError as error:
        detail = f"The image's colours (mode {image.mode}) cannot be converted: {error}. Send it in RGB."
        raise RequestError(Reason.UNDECODABLE, detail) from error


def eight_bits(values: Values, bits: int) -> npt.NDArray[np.uint8]:
    """Keep the upper 8 of the bits that are used; fewer than 8 are scaled to 0..255.

    Cameras and scanners store values of 10 or 12 bits in files with 16 bits per value, and note it: as `sBIT` in a
    PNG, as `MaxSampleValue` in a TIFF. Some leave the values as they are, such as 0 to 4095. Others scale them to 16
    bits, as PNG requires, with the same note. The largest value shows which of the two was done.

    Args:
        values: uint16 of any shape. If one of them needs more than `bits` bits, all 16 bits are used.
        bits: bits per value that are used, as the file says, 1 to 16.

    Returns:
        uint8 of the same shape.
    """
    if values.size == 0 or int(values.max()) >> bits:
        bits = 16
    if bits < 8:
        return cast("npt.NDArray[np.uint8]", (values * np.uint16(255) // np.uint16((1 << bits) - 1)).astype(np.uint8))
    return (values >> np.uint16(bits - 8)).astype(np.uint8)


class Turn:
    """The operations that turn a stored image upright, as its EXIF orientation says.

    Args:
        orientation: of EXIF, 1 (upright) to 8.

    Attributes:
        transpose: whether rows and columns are exchanged, before the flips.
        flip_x: whether left and right are exchanged.
        flip_y: whether top and bottom are exchanged.
        turns: whether there is anything to do.
    """

    def __init__(self, orientation: int) -> None:
        self.transpose = orientation >= 5
        self.flip_x = orientation in (2, 3, 6, 7)
        self.flip_y = orientation in (3, 4, 7, 8)
        self._pillow = _TRANSPOSITIONS.get(orientation)
        self.turns = self._pillow is not None

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
