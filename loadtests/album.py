"""The photos that load consists of: those of a folder, or the zoo's samples as JPEGs. Called by every load test."""

import io
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from zoo.catalog import sample

SAMPLES = ("astronaut", "chelsea", "coffee", "rocket")
QUALITY = 92
_TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}


class Photo(NamedTuple):
    """A picture's file, with a name for people."""

    name: str
    content_type: str
    data: bytes


def album(folder: Path | None = None) -> list[Photo]:
    """Return the pictures of a folder as they are, sorted by name; without a folder, the zoo's samples as JPEGs.

    Raises:
        ValueError: the folder holds no picture.
        SourceError: a sample is not in the zoo's cache and cannot be fetched.
    """
    if folder is None:
        return [jpeg(name) for name in SAMPLES]
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _TYPES)
    if not files:
        raise ValueError(f"{folder} holds no photo: expected files that end in {', '.join(_TYPES)}")
    return [Photo(path.name, _TYPES[path.suffix.lower()], path.read_bytes()) for path in files]


def jpeg(name: str, size: tuple[int, int] | None = None) -> Photo:
    """Return a sample photo of the zoo as JPEG, scaled to `size` (width, height) where one is given."""
    with Image.open(sample(name, progress=False)) as picture:
        pixels = picture.convert("RGB")
    if size is not None:
        pixels = pixels.resize(size, Image.Resampling.LANCZOS)
        name = f"{name} {size[0]}x{size[1]}"
    return Photo(name, "image/jpeg", encode(pixels))


def encode(pixels: Image.Image) -> bytes:
    """Encode a picture as JPEG of quality 92."""
    data = io.BytesIO()
    pixels.save(data, "JPEG", quality=QUALITY)
    return data.getvalue()
