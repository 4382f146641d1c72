"""The photos that load consists of: those of a folder, or the zoo's samples as JPEGs. Called by every load test."""

import io
from functools import cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageOps

SAMPLES = ("astronaut", "chelsea", "coffee", "rocket")
QUALITY = 92  # of JPEGs
_WIDTH, _HEIGHT, _STANDARD_QUALITY = 640, 480, 94
_TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}


class Photo(NamedTuple):
    """An image file, with a name for people."""

    name: str
    content_type: str
    data: bytes


def album(folder: Path | None = None) -> list[Photo]:
    """Return the images of a folder as they are, sorted by name; without a folder, the zoo's samples as JPEGs.

    Raises:
        ValueError: the folder holds no image.
        SourceError: a sample is not in the zoo's cache and cannot be fetched.
    """
    if folder is None:
        return [jpeg(name) for name in SAMPLES]
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _TYPES)
    if not files:
        raise ValueError(f"{folder} holds no photo: expected files that end in {', '.join(_TYPES)}")
    return [Photo(path.name, _TYPES[path.suffix.lower()], path.read_bytes()) for path in files]


@cache
def jpeg(name: str, size: tuple[int, int] | None = None) -> Photo:
    """Return a sample photo of the zoo as JPEG, scaled to `size` (width, height) where one is given."""
    with Image.open(_sample(name)) as image:
        pixels = image.convert("RGB")
    if size is not None:
        pixels = pixels.resize(size, Image.Resampling.LANCZOS)
        name = f"{name} {size[0]}x{size[1]}"
    return Photo(name, "image/jpeg", encode(pixels))


def standard_photo() -> bytes:
    """Return the photo that servers are compared with, the same bytes at every run: `astronaut`, as `shrink` makes it.

    Raises:
        SourceError: it is not in the zoo's cache and cannot be fetched.
    """
    return shrink(_sample("astronaut"))


def shrink(path: Path) -> bytes:
    """Return a photo cut to 4:3, scaled to 640 x 480 pixels, as JPEG of quality 94: about 94 kB."""
    with Image.open(path) as image:
        scaled = ImageOps.fit(image.convert("RGB"), (_WIDTH, _HEIGHT), Image.Resampling.LANCZOS)
    return encode(scaled, _STANDARD_QUALITY)


def encode(pixels: Image.Image, quality: int = QUALITY) -> bytes:
    """Encode an image as JPEG."""
    data = io.BytesIO()
    pixels.save(data, "JPEG", quality=quality)
    return data.getvalue()


def _sample(name: str) -> Path:
    from zoo.catalog import sample  # noqa: PLC0415 - `shrink` alone needs nothing to fetch with

    return sample(name, progress=False)
