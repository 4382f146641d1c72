"""The photo that the load consists of: 640 x 480 pixels, about 94 kB of JPEG, the same bytes at every run."""

import io
from pathlib import Path

from PIL import Image, ImageOps

WIDTH, HEIGHT, QUALITY = 640, 480, 94


def photo() -> bytes:
    """Return the zoo's photo `astronaut`, as `shrink` makes it.

    Raises:
        SourceError: it is not in the zoo's cache and cannot be fetched.
    """
    from zoo.catalog import sample  # noqa: PLC0415 - `shrink` alone needs nothing to fetch with

    return shrink(sample("astronaut"))


def shrink(path: Path) -> bytes:
    """Return a photo cut to 4:3, scaled to 640 x 480, as JPEG of quality 94."""
    with Image.open(path) as picture:
        scaled = ImageOps.fit(picture.convert("RGB"), (WIDTH, HEIGHT), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    scaled.save(data, "JPEG", quality=QUALITY)
    return data.getvalue()
