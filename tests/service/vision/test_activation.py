"""Boxes and heat maps from class activation maps, in the pixels of cropped, padded and stretched images."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.results import Png
from service.vision.activation import box_of, encode_heat, heat_of
from service.vision.masks import decode
from zoo.card import Recipe
from zoo.recipe import placement

SIDE, CELLS = 112, 7
RECIPES = {
    "stretch": Recipe(SIDE, SIDE, "stretch"),
    "crop": Recipe(SIDE, SIDE, "crop", short_side=128),
    "letterbox": Recipe(SIDE, SIDE, "letterbox"),
}


def one_hot(row: int, column: int) -> np.ndarray:
    activation = np.zeros((CELLS, CELLS), np.float32)
    activation[row, column] = 9
    return activation


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize(("width", "height"), [(300, 200), (200, 300), (64, 64)])
@pytest.mark.parametrize("sign", [1, -0.3])
def test_the_box_and_heat_of_a_single_cell(recipe, width, height, sign):
    """With linear interpolation between the cells' centres, values exceed 20 % up to 0.8 cells from the centre."""
    where = placement(recipe, width, height)
    row, column = 3, 2
    heat = heat_of(one_hot(row, column) - (sign < 0) * 20, where, SIDE, SIDE)  # a map may be negative everywhere
    cell = SIDE / CELLS
    left, right = ((column + 0.5 + side * 0.8) * cell for side in (-1, 1))
    top, bottom = ((row + 0.5 + side * 0.8) * cell for side in (-1, 1))
    expected = [
        np.clip((left - where.offset_x) / where.scale_x, 0, width),
        np.clip((top - where.offset_y) / where.scale_y, 0, height),
        np.clip((right - where.offset_x) / where.scale_x, 0, width),
        np.clip((bottom - where.offset_y) / where.scale_y, 0, height),
    ]
    pixel = 1.5 / min(where.scale_x, where.scale_y)  # of the input
    assert box_of(heat, where) == pytest.approx(expected, abs=pixel)


def test_the_box_encloses_the_largest_component_not_the_highest():
    activation = np.zeros((CELLS, CELLS), np.float32)
    activation[0, 6] = 10  # hotter
    activation[3:6, 0:3] = 5  # larger
    where = placement(RECIPES["stretch"], 70, 70)
    x0, y0, x1, y1 = box_of(heat_of(activation, where, SIDE, SIDE), where)
    assert (x0, y0) == pytest.approx((0, 29), abs=2)
    assert (x1, y1) == pytest.approx((31, 61), abs=2)


def test_the_box_of_a_constant_map_is_all_that_is_visible():
    where = placement(RECIPES["crop"], 300, 200)
    heat = heat_of(np.full((CELLS, CELLS), 3, np.float32), where, SIDE, SIDE)
    assert box_of(heat, where) == pytest.approx((62.5, 12.5, 237.5, 187.5), abs=1)


def test_activation_in_the_padding_of_a_letterbox_is_ignored():
    activation = one_hot(0, 3)  # above the image
    activation[3, 5] = 1
    where = placement(RECIPES["letterbox"], 300, 100)
    heat = heat_of(activation, where, SIDE, SIDE)
    x0, _, x1, _ = box_of(heat, where)
    assert x0 < 300 * 5.5 / CELLS < x1
    assert decode(encode_heat(heat, where), 300, 100).max() == pytest.approx(255, abs=3)


@given(
    activation=arrays.arrays(
        np.float32,
        arrays.array_shapes(min_dims=2, max_dims=2, max_side=13),
        elements=st.floats(-100, 100, width=32),
    ),
    recipe=st.sampled_from(list(RECIPES.values())),
    width=st.integers(1, 400),
    height=st.integers(1, 400),
)
def test_box_and_heat_lie_in_the_image(activation, recipe, width, height):
    where = placement(recipe, width, height)
    heat = heat_of(activation, where, SIDE, SIDE)
    assert (heat.shape, heat.dtype) == ((SIDE, SIDE), np.uint8)
    x0, y0, x1, y1 = box_of(heat, where)
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height
    png = encode_heat(heat, where)
    assert isinstance(png, Png)
    assert decode(png, width, height).shape == (height, width)
