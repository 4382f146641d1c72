"""Masks: resizing to the original image, areas, and the forms in which they are encoded."""

import base64
import io

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from pycocotools import mask as coco

from service.results import Png, Polygons, RunLength
from service.vision import masks
from zoo.card import Recipe
from zoo.recipe import placement

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:pycocotools")

RECIPES = {
    "stretch": Recipe(120, 160, "stretch"),
    "letterbox": Recipe(160, 160, "letterbox"),
    "crop": Recipe(120, 160, "crop", 160),
}
EVERY_RECIPE = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
SIZES = [(640, 480), (160, 120), (90, 300), (31, 17), (1, 1), (1, 700), (700, 1)]


def blobs(height: int, width: int) -> np.ndarray:
    """Class ids with a large and a small object that touch, and a hole."""
    classes = np.zeros((height, width), np.uint8)
    cv2.ellipse(classes, (width // 2, height // 2), (width // 4, height // 3), 30, 0, 360, 8, -1)
    cv2.circle(classes, (width // 2, height // 2), 6, 0, -1)
    classes[: height // 3, : width // 2] = 15
    return classes


def decoded(mask: RunLength) -> np.ndarray:
    return coco.decode({"size": list(mask.size), "counts": mask.counts})


binary = arrays.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=st.sampled_from([0, 255]))


@settings(max_examples=300, deadline=None)
@given(binary)
def test_run_lengths_equal_those_of_pycocotools(mask):
    found = masks.encode_rle(mask)
    assert found.size == mask.shape
    assert found.counts == coco.encode(np.asfortranarray(mask // 255))["counts"].decode()
    assert np.array_equal(masks.decode(found, *mask.shape[::-1]), mask)


@settings(deadline=None)
@given(binary)
def test_a_png_is_decoded_to_the_same_mask(mask):
    found = masks.encode_png(mask)
    image = Image.open(io.BytesIO(base64.b64decode(found.png)))
    assert (image.format, image.mode) == ("PNG", "L")
    assert np.array_equal(image, mask)
    assert np.array_equal(masks.decode(found, *mask.shape[::-1]), mask)


def test_an_empty_mask_has_no_polygons():
    assert masks.encode_polygons(np.zeros((20, 30), np.uint8)).polygons == []
    assert not masks.decode(Polygons([]), 30, 20).any()


@EVERY_RECIPE
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("form", ["rle", "png", "polygon"])
def test_every_form_encodes_the_same_mask(recipe, size, form):
    where = placement(recipe, *size)
    mask = masks.class_mask(blobs(recipe.height, recipe.width), 8)
    found = masks.encode(mask, where, form)
    assert isinstance(found, {"rle": RunLength, "png": Png, "polygon": Polygons}[form])
    whole = masks.to_image_size(mask, where) >= 128
    back = masks.decode(found, *size)
    assert whole.shape == back.shape == size[::-1]
    if form == "polygon":
        assert ((back > 0) != whole).mean() < 0.01
        wide = cv2.dilate(whole.astype(np.uint8), np.ones((3, 3), np.uint8))
        assert not (back > 0)[wide == 0].any()
    else:
        assert np.array_equal(back > 0, whole)


@EVERY_RECIPE
@pytest.mark.parametrize("size", [(640, 480), (90, 300), (1000, 333)])
def test_areas_equal_those_of_the_masks(recipe, size):
    where = placement(recipe, *size)
    classes = blobs(recipe.height, recipe.width)
    shares = masks.class_areas(classes, where)
    assert shares == sorted(shares, key=lambda pair: -pair[1])
    for class_id, share in shares:
        mask = masks.class_mask(classes, class_id)
        assert share == pytest.approx(masks.area(mask, where))
        assert share == pytest.approx((masks.to_image_size(mask, where) >= 128).mean(), abs=0.01)


def test_the_background_and_the_padding_of_a_letterbox_are_not_counted():
    where = placement(RECIPES["letterbox"], 320, 160)  # 40 rows of border above and below
    classes = np.full((160, 160), 3, np.uint8)
    classes[40:80] = 0
    assert masks.class_areas(classes, where) == [(3, 0.5)]
    assert masks.class_areas(classes[:, :] * 0, where) == []


def test_a_mask_is_empty_where_the_image_was_cropped():
    where = placement(RECIPES["crop"], 320, 320)  # 160 x 160, of which 160 x 120 are cut out
    whole = masks.to_image_size(np.full((120, 160), 255, np.uint8), where)
    assert masks.area(np.full((120, 160), 255, np.uint8), where) == 0.75
    assert (whole[40:280] == 255).all()
    assert (whole[:40] == 0).all()
    assert (whole[280:] == 0).all()


@EVERY_RECIPE
@pytest.mark.parametrize("size", [(640, 480), (480, 640), (2000, 900)])
def test_an_object_is_mapped_back_to_its_position(recipe, size):
    """A rectangle of the input, mapped back, covers the same pixels of the image as its corners do."""
    where = placement(recipe, *size)
    mask = np.zeros((recipe.height, recipe.width), np.uint8)
    mask[50:90, 60:110] = 255
    rows, columns = np.nonzero(masks.to_image_size(mask, where) >= 128)
    left, right = ((x - where.offset_x) / where.scale_x for x in (60, 110))
    top, bottom = ((y - where.offset_y) / where.scale_y for y in (50, 90))
    found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert found == pytest.approx((left, top, right, bottom), abs=1.0)


def test_masks_of_different_classes_do_not_overlap_after_resizing():
    where = placement(RECIPES["stretch"], 1237, 911)
    classes = np.random.default_rng(0).integers(0, 4, (120, 160)).astype(np.uint8)
    covered = sum((masks.to_image_size(masks.class_mask(classes, i), where) >= 128).astype(int) for i in range(4))
    assert covered.max() == 1


def test_a_soft_mask_keeps_its_opacity():
    where = placement(RECIPES["stretch"], 320, 240)
    alpha = np.tile(np.linspace(0, 255, 160).astype(np.uint8), (120, 1))
    soft, hard = (masks.decode(masks.encode(alpha, where, "png", soft=way), 320, 240) for way in (True, False))
    assert np.array_equal(soft, masks.to_image_size(alpha, where))
    assert set(np.unique(hard)) == {0, 255}
    assert np.array_equal(hard > 0, soft >= 128)
    assert np.array_equal(decoded(masks.encode(alpha, where, "rle")) > 0, soft >= 128)


@pytest.mark.parametrize("size", [(3000, 2000), (70, 130), (1, 1)])
@pytest.mark.parametrize("at", [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)])
def test_a_png_of_a_part_is_that_of_the_whole(size, at):
    """Readers check the checksums of the file as well."""
    (width, height), part = size, blobs(40, 30)[: size[1] // 2 + 1, : size[0] // 2 + 1] * 12
    left, top = (round(share * (side - has)) for share, side, has in zip(at, size, part.shape[::-1], strict=True))
    whole = np.zeros((height, width), np.uint8)
    whole[top : top + part.shape[0], left : left + part.shape[1]] = part
    data = base64.b64decode(masks.encode_png(part, masks.Frame(left, top, width, height)).png)
    image = Image.open(io.BytesIO(data))
    image.load()
    assert (image.mode, image.size) == ("L", size)
    assert np.array_equal(np.asarray(image), whole)
    assert np.array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED), whole)


@pytest.mark.parametrize("size", [(640, 480), (31, 17), (1, 700)])
def test_opacity_comes_back_by_pillows_lanczos_where_the_placement_says_so(size):
    where = placement(RECIPES["stretch"], *size)._replace(lanczos=True)
    alpha = np.asarray(Image.radial_gradient("L").resize((160, 120)))
    expected = np.asarray(Image.fromarray(alpha).resize(size, Image.Resampling.LANCZOS))
    assert np.array_equal(masks.decode(masks.encode(alpha, where, "png", soft=True), *size), expected)
    assert np.array_equal(decoded(masks.encode(alpha, where, "rle", soft=True)) > 0, expected >= 128)
    hard = masks.encode(alpha, where, "rle")
    assert hard == masks.encode(alpha, placement(RECIPES["stretch"], *size), "rle")
