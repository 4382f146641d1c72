"""Merging what was found in overlapping parts of an image, which is 200 x 100 pixels here, in two parts 120 wide."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.tasks.merging import Found, merge, touches_inner_edge

LEFT, RIGHT, WHOLE = (0, 0, 120, 100), (80, 0, 200, 100), (0, 0, 200, 100)
PARTS = np.array([LEFT, RIGHT, WHOLE], np.float64)
A, B, W = range(3)  # the parts


def found(*candidates: tuple[int, float, tuple[float, ...]], classes=()) -> Found:
    boxes = np.array([box for _, _, box in candidates], np.float64).reshape(-1, 4)
    parts = np.array([part for part, _, _ in candidates], np.intp)
    return Found(
        boxes,
        np.array([score for _, score, _ in candidates], np.float64),
        np.array(classes or [0] * len(candidates), np.int64),
        parts,
        touches_inner_edge(boxes, PARTS[parts], 200, 100),
    )


def merged(*candidates, how="seam", iou=0.5, most=100, classes=()) -> list[tuple[list[int], list[float]]]:
    objects = merge(found(*candidates, classes=classes), how, iou, most)
    assert [each.score for each in objects] == sorted((each.score for each in objects), reverse=True)
    return [(each.members, each.box.tolist()) for each in objects]


@pytest.mark.parametrize(
    ("part", "box", "expected"),
    [
        (LEFT, (10, 10, 60, 60), False),
        (LEFT, (0, 0, 60, 100), False),  # these edges are the image's own
        (LEFT, (60, 10, 120, 60), True),
        (LEFT, (60, 10, 119, 60), True),  # detectors are not exact to a pixel
        (LEFT, (60, 10, 118, 60), False),
        (RIGHT, (80, 10, 120, 60), True),
        (RIGHT, (150, 10, 200, 60), False),
        (WHOLE, (0, 0, 200, 100), False),
    ],
)
def test_boxes_that_touch_an_inner_edge(part, box, expected):
    edges = touches_inner_edge(np.array([box], np.float64), np.array([part], np.float64), 200, 100)
    assert edges.tolist() == [expected]


def test_complete_objects_that_agree_are_one_and_the_better_stays():
    pair = (A, 0.8, (90, 10, 110, 30)), (B, 0.9, (91, 10, 111, 30))
    assert merged(*pair) == [([1], [91, 10, 111, 30])]
    assert merged(*pair, classes=[0, 1]) == [([1], [91, 10, 111, 30]), ([0], [90, 10, 110, 30])]
    assert len(merged(*pair, how="none")) == 2
    assert len(merged(*pair, iou=0.95)) == 2


def test_a_piece_of_an_object_that_was_seen_whole_is_left_out():
    whole, piece = (B, 0.6, (90, 10, 150, 50)), (A, 0.9, (91, 9, 120, 52))
    assert merged(whole, piece) == [([0], [90, 10, 150, 50])]
    assert len(merged(whole, piece, how="nms")) == 2, "their IoU is small"


def test_a_small_complete_object_before_a_large_one_of_its_class_stays():
    large, small = (W, 0.9, (20, 10, 180, 90)), (A, 0.5, (40, 40, 50, 50))
    assert [members for members, _ in merged(large, small)] == [[0], [1]]


def test_a_large_piece_is_no_part_of_a_small_object():
    small, piece = (B, 0.9, (100, 40, 110, 50)), (A, 0.5, (20, 10, 120, 90))
    assert [members for members, _ in merged(small, piece)] == [[0], [1]]


def test_pieces_of_two_parts_are_united():
    left, right = (A, 0.7, (60, 20, 120, 60)), (B, 0.8, (80, 22, 140, 61))
    assert merged(left, right) == [([1, 0], [60, 20, 140, 61])]
    apart = (A, 0.7, (10, 20, 120, 60)), (B, 0.8, (80, 62, 140, 99))
    assert len(merged(*apart)) == 2


def test_what_was_found_in_one_part_is_never_merged():
    assert len(merged((A, 0.9, (10, 10, 60, 60)), (A, 0.8, (10, 10, 60, 61)))) == 2
    assert len(merged((A, 0.9, (60, 10, 120, 60)), (A, 0.8, (60, 10, 120, 61)))) == 2
    # of two pieces in one part, the better one is united with that of the other part
    pieces = (A, 0.6, (60, 20, 120, 60)), (A, 0.7, (62, 20, 120, 62)), (B, 0.9, (80, 20, 140, 60))
    assert [members for members, _ in merged(*pieces)] == [[2, 1], [0]]


@pytest.mark.parametrize("how", ["seam", "nms", "none"])
def test_the_best_are_returned(how):
    many = [(A, 0.5 + i / 100, (i * 20.0, 10.0, i * 20.0 + 10, 20.0)) for i in range(5)]
    assert [members for members, _ in merged(*many, how=how, most=2)] == [[4], [3]]
    assert merged(how=how) == []


boxes = st.tuples(st.integers(0, 190), st.integers(0, 90), st.integers(1, 100), st.integers(1, 100))


@given(st.lists(st.tuples(st.sampled_from([A, B, W]), st.floats(0.01, 1), boxes), max_size=30), st.sampled_from([0, 1]))
def test_every_object_is_found_again_inside_its_parts(candidates, classes):
    candidates = [(part, score, (x, y, min(x + w, 200), min(y + h, 100))) for part, score, (x, y, w, h) in candidates]
    kinds = [i % (classes + 1) for i in range(len(candidates))]
    given_ = found(*candidates, classes=kinds)
    objects = merge(given_, "seam", 0.5, 1000)
    members = [member for each in objects for member in each.members]
    assert len(members) == len(set(members)), "an object is part of one"
    for each in objects:
        assert len({kinds[member] for member in each.members}) == 1
        assert each.score == max(given_.scores[each.members])
    assert bool(objects) == bool(candidates)
