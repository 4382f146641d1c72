"""Images that graphs answer with, encoded: the recipe's border is cut off at any scale, and colours stay in order."""

import io

import numpy as np
import pytest
from PIL import Image

from service.vision.outputs import encode_output
from zoo.card import Recipe
from zoo.recipe import placement


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize(
    ("resize", "size", "seen"),
    [
        ("letterbox", (100, 50), (slice(16, 48), slice(0, 64))),
        ("letterbox", (50, 100), (slice(0, 64), slice(16, 48))),
        ("letterbox_top_left", (100, 50), (slice(0, 32), slice(0, 64))),
        ("stretch", (100, 50), (slice(0, 64), slice(0, 64))),
    ],
)
def test_the_border_of_the_recipe_is_cut_off(resize, size, seen, times):
    shown = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    image = shown.repeat(times, 0).repeat(times, 1)
    encoded = encode_output(image, placement(Recipe(64, 64, resize), *size), (64, 64))
    found = np.asarray(Image.open(io.BytesIO(encoded)))
    assert np.array_equal(found, shown[seen].repeat(times, 0).repeat(times, 1))


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_channels_are_in_their_order(channels, mode):
    image = np.random.default_rng(0).integers(0, 256, (8, 8, channels), np.uint8)
    found = Image.open(io.BytesIO(encode_output(image, placement(Recipe(8, 8, "stretch"), 8, 8), (8, 8))))
    assert found.mode == mode
    assert np.array_equal(np.asarray(found).reshape(8, 8, channels), image)


@pytest.mark.parametrize("size", [(1, 1), (1, 9999), (9999, 1)])
@pytest.mark.parametrize("side", [1, 16, 128])
def test_a_line_of_an_image_is_at_least_a_pixel(size, side):
    image = np.zeros((side, side, 3), np.uint8)
    found = Image.open(io.BytesIO(encode_output(image, placement(Recipe(64, 64, "letterbox"), *size), (64, 64))))
    assert min(found.size) >= 1
    assert max(found.size) == side
