"""Images for the tests of `service.vision`, encoded from real photos."""

import io
from collections.abc import Callable
from functools import cache

import pytest
from PIL import Image


@pytest.fixture(scope="session")
def open_image(photo) -> Callable[[str], Image.Image]:
    """A sample photo, decoded, mode RGB."""
    decoded = cache(lambda name: Image.open(io.BytesIO(photo(name))).convert("RGB"))
    return lambda name: decoded(name).copy()


@pytest.fixture(scope="session")
def encoded() -> Callable[..., bytes]:
    """Encode a Pillow image: `encoded(image, "JPEG", quality=90)`."""

    def encode(image: Image.Image, form: str, **options) -> bytes:
        data = io.BytesIO()
        image.save(data, form, **options)
        return data.getvalue()

    return encode
