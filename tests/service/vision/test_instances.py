"""Masks of single objects, compared with a simple computation of every pixel and with known outlines."""

import io
from base64 import b64decode

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from service.vision import masks
from service.vision.instances import instance_mask, on_prototypes
from zoo.card import Recipe
from zoo.recipe import placement

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:pycocotools")

INPUT = (160, 224)
RECIPES = {
    "stretch": Recipe(*INPUT, "stretch"),
    "letterbox": Recipe(*INPUT, "letterbox"),
    "crop": Recipe(*INPUT, "crop", 224),
}
COLUMNS = np.tile(np.arange(56, dtype=np.float32) + 0.5, (40, 1))  # each cell's place, in cells
PLANES = np.stack([COLUMNS, np.tile(np.arange(40, dtype=np.float32)[:, None] + 0.5, (1, 56)), np.ones_like(COLUMNS)])
sides = st.integers(1, 1500)
shares = st.tuples(*[st.floats(-0.2, 1.2)] * 4)


def blurred(seed: int) -> np.ndarray:
    """Eight prototypes as smooth as a network's."""
    noise = np.random.default_rng(seed).normal(size=(8, 40, 56)).astype(np.float32)
    return np.stack([cv2.GaussianBlur(plane, (0, 0), 2.5) * 20 for plane in noise])


def box_of(share, width: int, height: int) -> tuple[float, ...]:
    """A box of an image, clipped to it."""
    x, y = (sorted(np.clip(np.array(pair) * side, 0, side)) for pair, side in ((share[:2], width), (share[2:], height)))
    return (x[0], y[0], x[1], y[1])


def sums_at(sums: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Interpolate linearly at columns `x` and rows `y`, from the centre of the first cell; edges are repeated."""
    rows = np.stack([np.interp(x, np.arange(sums.shape[1]), row) for row in sums])
    return np.stack([np.interp(y, np.arange(sums.shape[0]), column) for column in rows.T], axis=1)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@settings(max_examples=120, deadline=None)
@given(width=sides, height=sides, share=shares, seed=st.integers(0, 9))
def test_every_pixel_is_as_computed_without_shortcuts(recipe, width, height, share, seed):
    where = on_prototypes(placement(recipe, width, height), INPUT, (8, 40, 56))
    box = box_of(share, width, height)
    coefficients = np.random.default_rng(seed).normal(size=8).astype(np.float32)
    prototypes = blurred(seed)
    mask, frame = instance_mask(coefficients, prototypes, box, where)
    assert set(np.unique(mask)) <= {0, 255}
    assert (frame.width, frame.height) == (width, height)
    x, y = frame.left + np.arange(mask.shape[1]), frame.top + np.arange(mask.shape[0])
    if mask.any():  # within the box, to whole pixels, and never less than one
        assert min(round(box[0]), width - 1) <= x[0] <= x[-1] < max(round(box[2]), x[0] + 1) <= width
        assert min(round(box[1]), height - 1) <= y[0] <= y[-1] < max(round(box[3]), y[0] + 1) <= height
    expected = sums_at(
        np.tensordot(coefficients, prototypes.astype(float), 1),
        (x + 0.5) * where.scale_x + where.offset_x - 0.5,
        (y + 0.5) * where.scale_y + where.offset_y - 0.5,
    )
    if mask.size > 1:  # one pixel may stand for a box that the crop cut off
        clear = np.abs(expected) > 0.8  # within it, the interpolation in two steps may differ
        assert np.array_equal((mask > 0)[clear], (expected > 0)[clear])
        assert ((mask > 0) != (expected > 0)).mean() <= max(0.03, 4 / mask.size)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("size", [(640, 480), (97, 61), (3000, 2000), (200, 1100), (13, 17)])
@pytest.mark.parametrize("edge", [20.0, 27.3, 36.5])
def test_a_straight_edge_is_at_its_exact_position(recipe, size, edge):
    """The sums rise linearly and are zero at `edge` cells from the left; the pixels right of it are the object."""
    whole = placement(recipe, *size)
    where = on_prototypes(whole, INPUT, PLANES.shape)
    mask, frame = instance_mask(np.float32([4, 0, -4 * edge]), PLANES, (0.0, 0.0, *map(float, size)), where)
    right = frame.left + np.arange(mask.shape[1]) + 0.5 > (edge - where.offset_x) / where.scale_x
    assert np.abs((mask > 0).sum(axis=1) - right.sum()).max() <= 1
    assert ((mask > 0).any(axis=0) != right).sum() <= 1
    if recipe.resize == "crop":  # what was cut off is not covered
        shown = ((0 - whole.offset_y) / whole.scale_y, (INPUT[0] - whole.offset_y) / whole.scale_y)
        assert (frame.top, frame.top + len(mask)) == pytest.approx(np.clip(shown, 0, size[1]), abs=1)


@pytest.mark.parametrize(
    ("box", "rectangle"),
    [
        ((10.0, 20.0, 30.0, 60.0), (10, 20, 30, 60)),
        ((10.4, 19.6, 29.6, 60.4), (10, 20, 30, 60)),
        ((0.0, 0.0, 448.0, 320.0), (0, 0, 448, 320)),
        ((447.8, 319.9, 448.0, 320.0), (447, 319, 448, 320)),  # a sliver has one pixel
    ],
)
def test_a_mask_that_fills_its_box_is_the_box_in_whole_pixels(box, rectangle):
    where = on_prototypes(placement(RECIPES["stretch"], 448, 320), INPUT, PLANES.shape)
    mask, frame = instance_mask(np.float32([0, 0, 5]), PLANES, box, where)
    assert (mask == 255).all()
    assert (frame.left, frame.top, frame.left + mask.shape[1], frame.top + mask.shape[0]) == rectangle


def test_the_mask_is_empty_where_the_image_was_cropped():
    where = on_prototypes(placement(RECIPES["crop"], 400, 400), INPUT, PLANES.shape)
    mask, _ = instance_mask(np.float32([0, 0, 5]), PLANES, (50.0, 0.0, 300.0, 40.0), where)
    assert not mask.any()


def test_a_probability_of_exactly_one_half_is_outside():
    where = on_prototypes(placement(RECIPES["stretch"], 448, 320), INPUT, PLANES.shape)
    for weight, inside in ((0.0, False), (1e-4, True), (-1e-4, False)):
        mask, _ = instance_mask(np.float32([0, 0, weight]), PLANES, (10.0, 20.0, 30.0, 60.0), where)
        assert (mask > 0).all() == mask.any() == inside


framed = st.tuples(
    arrays.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.sampled_from([0, 255])),
    st.tuples(*[st.integers(0, 5)] * 4),
)


@settings(max_examples=400, deadline=None)
@given(framed)
def test_a_part_of_a_mask_is_encoded_like_the_whole_mask(case):
    """Each form of a part is that of the whole mask, and is decoded to the same mask."""
    part, (left, top, right, bottom) = case
    whole = np.pad(part, ((top, bottom), (left, right)))
    frame = masks.Frame(left, top, whole.shape[1], whole.shape[0])
    assert masks.encode_rle(part, frame) == masks.encode_rle(whole)
    png = Image.open(io.BytesIO(b64decode(masks.encode_png(part, frame).png)))
    assert np.array_equal(np.asarray(png), whole)
    assert masks.encode_polygons(part, 0.0, frame) == masks.encode_polygons(whole)
    assert np.array_equal(masks.decode(masks.encode_rle(part, frame), frame.width, frame.height), whole)


@pytest.mark.parametrize("recipe", ["letterbox", "ultralytics"])
@settings(max_examples=60, deadline=None)
@given(width=st.integers(64, 1500), height=st.integers(64, 1500), x=st.floats(0.3, 0.7), y=st.floats(0.3, 0.7))
def test_a_disc_is_where_it_was(recipe, width, height, x, y):
    """Its centroid moves by less than half a cell of the prototypes, whatever the photo's size and padding."""
    recipes = {**RECIPES, "ultralytics": Recipe(*INPUT, "letterbox", resampling="opencv", odd_padding="after")}
    where = on_prototypes(placement(recipes[recipe], width, height), INPUT, (1, 40, 56))
    radius = 0.25 * min(width, height)
    columns = (np.arange(56) + 0.5 - where.offset_x) / where.scale_x - x * width
    rows = (np.arange(40)[:, None] + 0.5 - where.offset_y) / where.scale_y - y * height
    disc = ((radius - np.hypot(columns, rows)) * where.scale_x).astype(np.float32)[None]
    mask, frame = instance_mask(np.ones(1, np.float32), disc, (0, 0, width, height), where)
    found_y, found_x = (
        np.mean(at) + 0.5 + first for at, first in zip(np.nonzero(mask), (frame.top, frame.left), strict=True)
    )
    assert abs(found_x - x * width) * where.scale_x < 0.5
    assert abs(found_y - y * height) * where.scale_y < 0.5
