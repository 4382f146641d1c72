"""The exact recipe: geometry and pixels agree with each other and with torchvision."""

import time
from functools import cache

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
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
    interpolation=st.sampled_from(["bilinear", "bicubic", "lanczos"]),
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


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
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
    assert placement(recipe, *size)[4:6] == offset
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


PLAIN = {
    "opencv": Recipe(320, 320, "letterbox", resampling="opencv", odd_padding="after"),
    "opencv, bicubic": Recipe(416, 416, "stretch", interpolation="bicubic", resampling="opencv"),
    "torch": Recipe(320, 320, "letterbox_top_left", resampling="torch", rounding="floor"),
    "torch, stretch": Recipe(300, 300, "stretch", resampling="torch"),
}
SIZES = [(641, 640), (1919, 1080), (333, 1000), (100, 40)]


def by_library(recipe: Recipe, image: Image.Image) -> np.ndarray:
    """The scaled image, by calls of the library itself."""
    width, height = scaled_size(recipe, *image.size)
    pixels = np.asarray(image)
    if recipe.resampling == "opencv":
        kind = cv2.INTER_CUBIC if recipe.interpolation == "bicubic" else cv2.INTER_LINEAR
        return cv2.resize(pixels, (width, height), interpolation=kind)
    x = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float()
    return F.interpolate(x, (height, width), mode="bilinear")[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("recipe", PLAIN.values(), ids=PLAIN)
def test_pixels_are_those_of_the_library(recipe, size):
    image = photo().resize(size)
    where = placement(recipe, *size)
    expected = by_library(recipe, image).astype(float)
    left, top = int(where.offset_x), int(where.offset_y)
    out = apply_exact(recipe, image)
    part = out[top : top + expected.shape[0], left : left + expected.shape[1]]
    assert np.abs(part - expected).max() <= (0 if recipe.resampling == "opencv" else 0.51)
    border = np.ones(out.shape[:2], bool)
    border[top : top + expected.shape[0], left : left + expected.shape[1]] = False
    assert (out[border] == recipe.pad).all()


@pytest.mark.parametrize("size", SIZES)
def test_darknet_maps_corner_pixels_to_corner_pixels(size):
    """As Darknet's `resize_image`: align_corners, in torch's words."""
    image = photo().resize(size)
    x = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].double()
    expected = F.interpolate(x, (416, 416), mode="bilinear", align_corners=True)[0].permute(1, 2, 0).numpy()
    out = apply_exact(Recipe(416, 416, "stretch", resampling="darknet"), image)
    assert np.abs(out - expected).max() <= 0.51


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"resize": "crop", "short_side": 320, "resampling": "opencv"}, "does not crop"),
        (
            {"resize": "stretch", "resampling": "torch", "interpolation": "bicubic"},
            'torch"` is bilinear only: use `pillow` or `opencv` for bicubic',
        ),
        (
            {"resize": "stretch", "resampling": "opencv", "interpolation": "lanczos"},
            'opencv"` is bilinear or bicubic only: use `pillow` for lanczos',
        ),
    ],
)
def test_what_a_library_cannot_do_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Recipe(320, 320, **fields)


@pytest.mark.parametrize(
    ("width", "height", "scaled", "left", "top"),
    [(641, 640, (640, 639), 0, 0), (639, 640, (639, 640), 0, 0), (1280, 1277, (640, 638), 0, 1)],
)
def test_an_odd_line_of_padding_comes_last(width, height, scaled, left, top):
    recipe = Recipe(640, 640, "letterbox", resampling="opencv", odd_padding="after")
    where = placement(recipe, width, height)
    assert scaled_size(recipe, width, height) == scaled
    assert (where.offset_x, where.offset_y) == (left, top)
