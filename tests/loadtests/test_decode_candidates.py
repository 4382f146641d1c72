"""Every candidate comes close to the exact recipe, and has a name of its own."""

import io

import numpy as np
import pytest
from PIL import Image

from loadtests.decode_candidates import WAYS, apply
from service.vision.resize import prepare
from zoo.card import Recipe

RECIPES = {
    "crop": Recipe(96, 96, "crop", 110),
    "bicubic": Recipe(96, 96, "crop", 110, "bicubic"),
    "letterbox": Recipe(120, 160, "letterbox"),
}


@pytest.fixture(scope="module")
def jpeg(photo):
    data = io.BytesIO()
    Image.open(io.BytesIO(photo("coffee"))).convert("RGB").save(data, "JPEG", quality=92)
    return data.getvalue()  # 600 x 400


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_candidates_are_close(jpeg, recipe, way):
    exact, _ = prepare(jpeg, recipe, exact=True)
    pixels = apply(way, jpeg, 600, 400, recipe)
    assert pixels.shape == exact.shape
    assert np.abs(pixels.astype(int) - exact).mean() < 8


def test_names_are_unique():
    assert len({way.name for way in WAYS}) == len(WAYS)
