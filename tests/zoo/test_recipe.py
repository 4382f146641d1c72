"""The exact recipe: geometry and pixels agree with each other and with torchvision."""

import time
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from zoo import catalog
from zoo.card import Recipe
from zoo.recipe import apply_exact, placement, scaled_size

side = st.integers(1, 700)
target = st.integers(16, 320)


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    height, width = draw(target), draw(target)
    resize = draw(st.sampled_from(["crop", "letterbox", "letterbox_top_left", "stretch"]))
    short = max(height, width) + draw(st.integers(0, 64)) if resize == "crop" else None
    return Recipe(height, width, resize, short, draw(st.sampled_from(["bilinear", "bicubic"])), (1, 2, 3))


@cache
def photo() -> Image.Image:
    return Image.open(catalog.sample("chelsea")).convert("RGB")


@settings(max_examples=60, deadline=None)
@given(recipes(), st.integers(8, 400), st.integers(8, 400))
def test_pixels_are_at_the_positions_of_placement(recipe, width, height):
    """In an image whose red grows with x and whose green grows with y, a pixel's colour is its place."""
    ramp = np.zeros((height, width, 3), np.uint8)
    ramp[:, :, 0] = (np.arange(width) + 0.5) * 255 / width
    ramp[:, :, 1] = ((np.arange(height) + 0.5) * 255 / height)[:, None]
    out = apply_exact(recipe, Image.fromarray(ramp)).astype(float)
    assert out.shape == (recipe.height, recipe.width, 3)

    where = placement(recipe, width, height)
    x = (np.arange(recipe.width) + 0.5 - where.offset_x) / where.scale_x
    y = (np.arange(recipe.height) + 0.5 - where.offset_y) / where.scale_y
    # Away from the border (two source pixels for the filter, or two of a reduced image), where nothing is cut off.
    margin_x, margin_y = 2 * max(1, 1 / where.scale_x), 2 * max(1, 1 / where.scale_y)
    inner_x, inner_y = (x > margin_x) & (x < width - margin_x), (y > margin_y) & (y < height - margin_y)
    inner = np.ix_(inner_y, inner_x)
    tolerance = 2.0 + 255 * 0.05 / min(width, height)
    assert np.abs(out[..., 0][inner] - (x * 255 / width)[inner_x]).max(initial=0) <= tolerance
    assert np.abs(out[..., 1][inner] - (y * 255 / height)[inner_y][:, None]).max(initial=0) <= tolerance

    outside = ((x < 0) | (x > width))[None, :] | ((y < 0) | (y > height))[:, None]
    assert (out[outside] == recipe.pad).all()
    assert "letterbox" in recipe.resize or not outside.any()


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(20, 500), st.integers(20, 500)),
    crop=st.tuples(target, target),
    more=st.integers(0, 64),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
)
def test_crop_equals_torchvisions_resize_and_center_crop(size, crop, more, interpolation):
    recipe = Recipe(*crop, "crop", max(crop) + more, interpolation)
    image = photo().resize(size)
    expected = transforms.Compose(
        [transforms.Resize(recipe.short_side, InterpolationMode(interpolation)), transforms.CenterCrop(crop)]
    )(image)
    np.testing.assert_array_equal(apply_exact(recipe, image), np.asarray(expected))


@pytest.mark.parametrize("size", [(40, 400), (400, 30)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_cropping_before_resampling_changes_few_pixels(monkeypatch, size, interpolation):
    recipe = Recipe(224, 224, "crop", 256, interpolation)
    image = photo().resize(size)
    whole = apply_exact(recipe, image).astype(int)
    monkeypatch.setattr("zoo.recipe._LARGEST", 0)
    difference = np.abs(apply_exact(recipe, image).astype(int) - whole)
    assert difference.max() <= 2
    assert difference.mean() < 0.3


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_stretch_equals_pillows_resize(interpolation):
    recipe = Recipe(257, 200, "stretch", interpolation=interpolation)
    expected = photo().resize((200, 257), Image.Resampling[interpolation.upper()])
    np.testing.assert_array_equal(apply_exact(recipe, photo()), np.asarray(expected))


@pytest.mark.parametrize(
    ("size", "scaled", "offset"),
    [
        ((600, 400), (416, 277), (0, 70)),
        ((400, 600), (277, 416), (70, 0)),
        ((208, 208), (416, 416), (0, 0)),
        ((1, 4000), (1, 416), (208, 0)),
    ],
)
def test_letterbox_centres_the_whole_image(size, scaled, offset):
    recipe = Recipe(416, 416, "letterbox")
    assert scaled_size(recipe, *size) == scaled
    assert placement(recipe, *size)[4:] == offset
    out = apply_exact(recipe, Image.new("RGB", size, (255, 0, 0)))
    inside = (out == (255, 0, 0)).all(axis=2)
    assert inside.sum() == scaled[0] * scaled[1]
    assert (out[~inside] == 114).all()


def test_letterbox_top_left_pads_right_and_bottom():
    """YOLOX's own preprocessing: the resized image in the corner of a canvas of grey 114."""
    recipe = Recipe(416, 416, "letterbox_top_left")
    image = Image.open(catalog.sample("coffee")).convert("RGB")
    expected = Image.new("RGB", (416, 416), (114, 114, 114))
    expected.paste(image.resize((416, 277), Image.Resampling.BILINEAR), (0, 0))
    np.testing.assert_array_equal(apply_exact(recipe, image), np.asarray(expected))


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (3, 3000)])
@pytest.mark.parametrize("resize", ["crop", "letterbox", "stretch"])
def test_extreme_sizes_do_not_hang(size, resize):
    recipe = Recipe(224, 224, resize, 256 if resize == "crop" else None)
    image = Image.new("RGB", size, (10, 200, 30))
    start = time.perf_counter()
    out = apply_exact(recipe, image)
    assert time.perf_counter() - start < 10  # a whole strip at its short side's scale would take minutes
    assert out.shape == (224, 224, 3)
    assert (out[112, 112] == (10, 200, 30)).all()
