"""The sample photos on which conversions are compared. `export.pipeline` and `export.tensors` open them."""

from pathlib import Path

from PIL import Image, ImageOps

PARITY_PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")  # one package has them all


def open_upright(path: Path) -> Image.Image:
    """Open a photo as the exact recipe expects it: upright, RGB."""
    return ImageOps.exif_transpose(Image.open(path)).convert("RGB")
