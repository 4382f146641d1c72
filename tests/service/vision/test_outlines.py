"""Outlines along the edges of pixels: pycocotools, the shoelace formula and our client read the same mask from them."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco
from zooserve_client.results import _filled

from service.vision import masks
from service.vision.outlines import MOST, outlines
from zoo.card import Recipe
from zoo.recipe import placement

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:pycocotools")

binary = arrays.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=st.sampled_from([0, 255]))
scales = st.sampled_from([1, 2, 3, 5])


def read_back(polygons, height: int, width: int) -> np.ndarray:
    """Decode polygons with pycocotools."""
    if not polygons:
        return np.zeros((height, width), np.uint8)
    return coco.decode(coco.merge(coco.frPyObjects(polygons, height, width)))


def mask_of(*rows: str) -> np.ndarray:
    return np.array([[255 * (pixel == "#") for pixel in row] for row in rows], np.uint8)


def area(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return abs(float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum())) / 2


@settings(max_examples=300, deadline=None)
@given(binary, scales)
def test_polygons_cover_the_same_pixels_as_the_mask(noise, scale):
    """Except for a few pixels at the edges. Masks are noise, and noise that is enlarged to round shapes."""
    mask = masks.binary(cv2.resize(noise, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR))
    height, width = mask.shape
    found = masks.encode_polygons(mask).polygons
    for line in found:
        assert len(line) >= 6
        assert len(line) % 2 == 0
        assert all(0 <= x <= width for x in line[::2])
        assert all(0 <= y <= height for y in line[1::2])
    inside = mask > 0
    around = np.pad(mask, 1)
    wide = cv2.dilate(mask, np.ones((3, 3), np.uint8)) > 0
    narrow = cv2.erode(around, np.ones((3, 3), np.uint8))[1:-1, 1:-1] > 0
    edges = np.count_nonzero(around[1:] != around[:-1]) + np.count_nonzero(around[:, 1:] != around[:, :-1])
    for drawn in (read_back(found, height, width) > 0, _filled(found, width, height)):
        assert not (drawn & ~wide).any()
        assert not (narrow & ~drawn).any()
        assert (drawn != inside).sum() <= 0.15 * edges
    assert np.array_equal(masks.decode(masks.Polygons(found), width, height) > 0, read_back(found, height, width) > 0)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 24)] * 4), min_size=1, max_size=6), st.integers(2, 5))
def test_straight_edges_are_exact(rectangles, scale):
    """Unions of rectangles and holes, whose edges are longer than a pixel."""
    mask = np.zeros((25, 25), np.uint8)
    for number, (x0, y0, x1, y1) in enumerate(rectangles):
        mask[min(y0, y1) : max(y0, y1), min(x0, x1) : max(x0, x1)] = 255 * (number % 3 < 2)
    mask = cv2.resize(mask, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
    found = masks.encode_polygons(mask).polygons
    assert np.array_equal(read_back(found, *mask.shape), mask > 0)
    assert np.array_equal(_filled(found, *mask.shape[::-1]), mask > 0)
    assert sum(area(line) for line in outlines(mask)) == np.count_nonzero(mask)


@pytest.mark.parametrize(
    ("mask", "points", "covers"),
    [
        (mask_of("#"), 4, 1),
        (mask_of("##", "##"), 4, 4),
        (mask_of("#####"), 4, 5),
        (mask_of("#", "#", "#"), 4, 3),
        (mask_of("....", ".##.", ".##.", "...."), 4, 4),
        (mask_of("###", "#.#", "###"), 10, 8),  # round the hole, with a line there and back
        (mask_of("#####", "#.#.#", "#####"), 16, 13),
        (mask_of("######", "#....#", "#.##.#", "#....#", "######"), 10, 20),
    ],
)
def test_small_objects_are_exact(mask, points, covers):
    polygons = outlines(mask)
    assert sum(area(line) for line in polygons) == np.count_nonzero(mask)
    assert area(polygons[0]) in (covers, covers - 2)
    assert len(polygons[0]) == points
    assert np.array_equal(read_back([line.ravel().tolist() for line in polygons], *mask.shape), mask > 0)


@pytest.mark.parametrize(
    "mask",
    [
        mask_of("#..", ".#.", "..#"),
        mask_of("#....", ".#...", "..#..", "...#.", "....#"),
        mask_of(".#.", "###", ".#."),
        mask_of("#.#", ".#.", "#.#"),
        mask_of("##...", "..##.", "....#"),
        mask_of("#..", "##.", "###"),
        np.eye(50, dtype=np.uint8) * 255,
    ],
)
def test_thin_and_oblique_objects_keep_their_pixels(mask):
    polygons = [line.ravel().tolist() for line in outlines(mask)]
    assert all(len(line) >= 6 for line in polygons)
    for drawn in (read_back(polygons, *mask.shape) > 0, _filled(polygons, *mask.shape[::-1])):
        assert drawn[mask > 0].all()
        assert drawn[mask == 0].sum() <= 1


def test_a_line_of_single_pixels_is_one_pixel_wide():
    """A line of 50 pixels, through the path of a request."""
    mask = np.zeros((160, 160), np.uint8)
    mask[80, 40:90] = 255
    (line,) = masks.encode(mask, placement(Recipe(160, 160, "stretch"), 160, 160), "polygon").polygons
    assert {tuple(point) for point in np.reshape(line, (-1, 2))} == {(40, 80), (90, 80), (90, 81), (40, 81)}
    assert np.array_equal(read_back([line], 160, 160), mask > 0)


def test_a_smooth_outline_has_few_points_and_no_bias():
    mask = np.zeros((1200, 1600), np.uint8)
    cv2.ellipse(mask, (800, 600), (500, 300), 30, 0, 360, 255, -1)
    cv2.circle(mask, (700, 600), 100, 0, -1)
    (line,) = outlines(mask)
    assert len(line) < 400
    assert area(line) == pytest.approx(np.count_nonzero(mask), rel=2e-4)
    assert (read_back([line.ravel().tolist()], 1200, 1600) != (mask > 0)).sum() < 600  # of 2,700 along the edge


def test_small_parts_are_left_out_but_never_everything():
    mask = np.zeros((60, 60), np.uint8)
    mask[5:35, 5:35] = mask[50:53, 50:53] = 255
    mask[10:12, 10:12] = 0  # a small hole
    mask[20:25, 20:25] = 0  # and one that is not
    assert [area(line) for line in outlines(mask)] == [900 - 4 - 25, 9]
    assert [area(line) for line in outlines(mask, min_area=10.0)] == [900 - 25]
    mask[5:35, 5:35] = 0
    assert [area(line) for line in outlines(mask, min_area=10.0)] == [9]


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_of_noise_only_the_largest_parts_are_traced(share):
    """A mask of noise has hundreds of thousands of outlines. The few that are kept are decoded correctly."""
    noise = np.where(np.random.default_rng(0).random((1024, 1024)) < share, np.uint8(255), np.uint8(0))
    noise[100:300, 100:300] = 255
    noise[700:800, 700:800] = 0
    polygons = outlines(noise)
    assert 1 <= len(polygons) <= MOST
    assert sum(map(len, polygons)) < 400_000
    drawn = read_back([line.ravel().tolist() for line in polygons], 1024, 1024)
    assert drawn[105:295, 105:295].all()
    assert not drawn[705:795, 705:795].any()


def test_background_at_the_edge_of_a_noisy_mask_is_not_a_hole():
    mask = np.where(np.random.default_rng(0).random((600, 600)) < 0.9, np.uint8(255), np.uint8(0))
    mask[:, :50] = 0
    drawn = read_back([line.ravel().tolist() for line in outlines(mask)], 600, 600)
    assert not drawn[:, :45].any()
