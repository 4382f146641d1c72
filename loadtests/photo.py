"""The photo that the load consists of: 640 x 480 pixels, about 94 kB of JPEG, the same bytes at every run."""

import io

from PIL import Image

from zoo.catalog import sample

WIDTH, HEIGHT, QUALITY = 640, 480, 94


def photo() -> bytes:
    """Return the zoo's photo `astronaut`, cut to 4:3, scaled to 640 x 480, as JPEG of quality 94.

    Raises:
        SourceError: it is not in the zoo's cache and cannot be fetched.
    """
    with Image.open(sample("astronaut")) as picture:
        height = picture.width * HEIGHT / WIDTH
        top = (picture.height - height) / 2
        scaled = picture.convert("RGB").resize(
            (WIDTH, HEIGHT), Image.Resampling.LANCZOS, box=(0, top, picture.width, top + height)
        )
    data = io.BytesIO()
    scaled.save(data, "JPEG", quality=QUALITY)
    return data.getvalue()
