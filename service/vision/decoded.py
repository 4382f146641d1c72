"""A decoded image, from which several parts are cut: tiles, or the objects that a detector found.

`resize` takes it, and each part of it, in the place of an encoded image.
"""

import numpy as np
from PIL import Image

from service.results import Box
from service.vision.decode import EncodedImage, Pixels
from service.vision.geometry import whole_pixels
from service.vision.pixels import Turn, to_rgb


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

    def stored(self, reduce: int = 1, *, fast_chroma: bool = False) -> Pixels:  # noqa: ARG002 - as of an encoded image
        """Return the pixels, uint8 [height, width, 3] RGB."""
        return self._pixels

    def image(self) -> Image.Image:
        """Return the pixels as a Pillow image, mode RGB."""
        return Image.fromarray(self._pixels)

    def cut(self, box: Box) -> "DecodedImage":
        """Cut out a part, without a copy.

        Args:
            box: xyxy in pixels of the image, within it; it is rounded to whole pixels, at least one.
        """
        left, right = whole_pixels(box[0], box[2], self.width)
        top, bottom = whole_pixels(box[1], box[3], self.height)
        return DecodedImage(self._pixels[top:bottom, left:right])


def decode_whole(encoded: EncodedImage) -> DecodedImage:
    """Decode an image in its full size; raises `RequestError` (`undecodable`) as `EncodedImage.stored` does."""
    stored = encoded.stored()
    pixels = stored if isinstance(stored, np.ndarray) else np.asarray(to_rgb(stored))
    return DecodedImage(encoded.turn.array(pixels))
