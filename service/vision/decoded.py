"""A decoded image, from which several parts are cut: tiles, or the objects that a detector found.

`resize` takes it, and each part of it, in the place of an encoded image.
"""

import numpy as np
from PIL import Image

from service.results import Box
from service.vision.decode import EncodedImage, decode
from service.vision.formats import MAX_PIXELS
from service.vision.geometry import whole_pixels
from service.vision.pixels import Pixels, Turn


class DecodedImage:
    """The pixels of an upright image.

    Args:
        pixels: uint8 [height, width, 3] RGB.

    Attributes:
        width, height: in pixels.
        turn: none, as for an `EncodedImage` that is stored upright.
    """

    turn = Turn(1)

    def __init__(self, pixels: Pixels) -> None:
        self._pixels = pixels
        self.height, self.width, _ = pixels.shape

    def stored(self, *, fast_chroma: bool = False) -> Pixels:  # noqa: ARG002 - as of an encoded image
        """Return the pixels, uint8 [height, width, 3] RGB."""
        return self._pixels

    def image(self) -> Image.Image:
        """Return the pixels as a Pillow image, mode RGB."""
        return Image.fromarray(self._pixels)

    def free(self) -> None:
        """Free the pixels, whoever still has the image. Parts that were cut out, and not freed, keep them."""
        self._pixels = np.empty((0, 0, 3), np.uint8)

    def cut(self, box: Box) -> "DecodedImage":
        """Cut out a part, without a copy.

        Args:
            box: xyxy in pixels of the image, within it; it is rounded to whole pixels, at least one.
        """
        left, right = whole_pixels(box[0], box[2], self.width)
        top, bottom = whole_pixels(box[1], box[3], self.height)
        return DecodedImage(self._pixels[top:bottom, left:right])


def size_of(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Return width and height of an encoded image, upright, in pixels; raises `RequestError` as `EncodedImage` does."""
    encoded = EncodedImage(data, max_pixels)
    return encoded.width, encoded.height


def decode_whole(data: bytes, max_pixels: int = MAX_PIXELS) -> DecodedImage:
    """Decode an image in its full size; raises `RequestError` as `decode` does."""
    return DecodedImage(decode(data, max_pixels=max_pixels))
