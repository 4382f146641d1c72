"""Converts a decoded image of any colour mode to RGB. Called by `decode` and `resample`."""

import numpy as np
from PIL import Image

from service.errors import Reason, RequestError


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
