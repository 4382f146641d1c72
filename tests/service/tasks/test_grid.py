"""The tiles of an image: they cover it, are of one size, overlap as asked, and are not too many."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import RequestError
from service.tasks import options_of
from service.tasks.grid import Tiling, cuts_of, tiling_of
from zoo.card import Recipe

RECIPE = Recipe(height=48, width=64, resize="letterbox")


def starts(side: int, tile: int, overlap: float) -> list[int]:
    cuts = cuts_of(side, 40, RECIPE, Tiling(f"{tile}x40", overlap, tile_full=False, max_tiles=1000))
    return [left for left, *_ in cuts]


@pytest.mark.parametrize(
    ("side", "tile", "overlap", "expected"),
    [
        (100, 100, 0.2, [0]),
        (30, 100, 0.2, [0]),
        (101, 100, 0.2, [0, 1]),  # shifted inwards: no sliver of one pixel
        (180, 100, 0.2, [0, 80]),
        (181, 100, 0.2, [0, 80, 81]),
        (300, 100, 0.0, [0, 100, 200]),
        (12, 10, 0.9, [0, 1, 2]),
    ],
)
def test_places_along_an_axis(side, tile, overlap, expected):
    assert starts(side, tile, overlap) == expected


@given(st.integers(1, 3000), st.integers(10, 1000), st.floats(0, 0.7))
def test_tiles_cover_an_axis_and_overlap(side, tile, overlap):
    tiles = [(left, left + min(tile, side)) for left in starts(side, tile, overlap)]
    assert tiles[0][0] == 0
    assert tiles[-1][1] == side
    for (first, end), (begin, _) in pairwise(tiles):
        assert first < begin
        assert end - begin >= int(tile * overlap)


def test_the_whole_image_is_the_last_cut_unless_one_tile_is_all_of_it():
    assert cuts_of(100, 48, RECIPE, Tiling("auto")) == [
        (0, 0, 64, 48),
        (36, 0, 100, 48),
        (0, 0, 100, 48),
    ]
    assert cuts_of(64, 48, RECIPE, Tiling("auto")) == [(0, 0, 64, 48)]
    assert cuts_of(20, 10, RECIPE, Tiling("640x640")) == [(0, 0, 20, 10)]


def test_too_many_tiles_are_refused_with_both_numbers():
    with pytest.raises(RequestError, match=r"has 16 tiles of 64 x 48, and is .* whole; `max_tiles` is 16") as refused:
        cuts_of(200, 130, RECIPE, Tiling("auto", max_tiles=16))
    assert refused.value.reason == "bad_option"
    assert len(cuts_of(200, 130, RECIPE, Tiling("auto", max_tiles=17))) == 17


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tiles": "640"}, "`tiles=640`: expected `auto`, or WIDTHxHEIGHT in pixels of the image, such as `640x640`."),
        ({"tiles": "0x64"}, "expected `auto`"),
        ({"tiles": "9x9"}, "expected `auto`"),
        ({"tiles": "auto\n"}, "expected `auto`"),
        ({"tiles": "auto", "tile_overlap": "1"}, "`tile_overlap=1`: expected a number from 0 to 0.9."),
        ({"tiles": "auto", "max_tiles": "0"}, "`max_tiles=0`: expected a whole number from 1 to 1000."),
        ({"tiles": "auto", "merge": "nmm"}, "`merge=nmm`: expected one of `nms`, `none`, `seam`."),
    ],
)
def test_options_that_are_not_allowed_are_named(given, message):
    for task in ("detect", "segment"):
        with pytest.raises(RequestError) as refused:
            options_of(task, given)
        assert message in refused.value.detail


@pytest.mark.parametrize("task", ["pose", "obb", "classify"])
def test_other_tasks_have_no_tiles(task):
    with pytest.raises(RequestError, match="There is no option `tiles` here"):
        options_of(task, {"tiles": "auto"})


def test_the_options_of_a_task_are_those_of_tiles():
    given = {"tiles": "640x512", "tile_overlap": "0.3", "tile_full": "false", "max_tiles": "9", "merge": "nms"}
    for task in ("detect", "segment"):
        assert tiling_of(options_of(task, given)) == Tiling("640x512", 0.3, tile_full=False, max_tiles=9, merge="nms")
        assert tiling_of(options_of(task, {"merge": "nms"})) is None
