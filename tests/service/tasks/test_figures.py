"""Poses and rotated boxes: which candidates are kept, and where they are in the image."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import RequestError
from service.models.selftest import agrees, rotated_iou
from service.results import Pose, RotatedBox
from service.tasks import TASKS, options_of
from tests.service import figures
from zoo.recipe import placement
from zoo.rotated import corners, normal_angle, probiou, suppress
from zoo.served_card import Prediction
from zoo.store import Store


@pytest.fixture(scope="module")
def cards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    figures.publish(folder)
    return {name: Store(folder / "models").latest(name).card for name in ("walker", "decks")}


def answer(card, outputs, **params):
    batch = {name: np.stack([value * 0, value]) for name, value in outputs.items()}
    where = placement(card.recipe, 128, 96)
    return TASKS[card.task].answer(batch, 1, card, where, options_of(card.task, params))


@pytest.mark.parametrize(
    ("params", "ranks"),
    [
        ({}, [0, 1, 2]),
        ({"score_threshold": 0.5}, [0, 1]),
        ({"max_detections": 1}, [0]),
        ({"score_threshold": 0.95}, []),
    ],
)
def test_poses_are_those_of_the_boxes_that_are_kept(cards, params, ranks):
    found = answer(cards["walker"], figures.POSES, **params)
    expected = [*figures.SKELETON, [(6, 8, 0.9), (8, 12, 0.9), (10, 16, 0.9)]]
    assert len(found) == len(ranks)
    for pose, rank in zip(found, ranks, strict=True):
        assert list(pose.keypoints) == ["head", "hip", "foot"]
        np.testing.assert_allclose(list(pose.keypoints.values()), expected[rank], atol=1e-6)
    assert all(pose.label == "walker" for pose in found)


def test_the_form_of_coco_has_its_fields(cards):
    (first, second, _) = answer(cards["walker"], figures.POSES, form="coco")
    assert (first.category_id, first.score, first.bbox) == (1, 0.9, (8.0, 8.0, 64.0, 80.0))
    assert first.keypoints == pytest.approx(np.ravel(figures.SKELETON[0]))
    assert second.bbox == (80.0, 0.0, 48.0, 64.0)


@pytest.mark.parametrize(
    ("params", "ranks"),
    [({}, [0, 1, 2]), ({"iou_threshold": 1}, [0, None, 1, 2]), ({"max_detections": 2}, [0, 1])],
)
def test_rotated_boxes_are_suppressed_class_by_class(cards, params, ranks):
    found = answer(cards["decks"], figures.ROTATED, **params)
    assert len(found) == len(ranks)
    for box, rank in zip(found, ranks, strict=True):
        if rank is not None:
            expected = figures.IN_IMAGE[rank]
            assert (*box.center, *box.size, box.angle) == pytest.approx(expected, abs=1e-4)
            np.testing.assert_allclose(box.corners, corners(np.array([expected]))[0], atol=0.01)


def test_corners_go_clockwise_from_the_objects_own_top_left():
    (upright, turned) = corners(np.array([[10, 20, 8, 4, 0], [10, 20, 8, 4, np.pi / 2]]))
    assert upright.tolist() == [[6, 18], [14, 18], [14, 22], [6, 22]]
    np.testing.assert_allclose(turned, [[12, 16], [12, 24], [8, 24], [8, 16]], atol=1e-9)  # the left side is up


@pytest.mark.parametrize("angle", [-7, -np.pi / 4, 0, 0.5, 2.35, 3 * np.pi / 4, 4])
def test_a_normal_angle_is_that_of_the_same_box(angle):
    normal = float(normal_angle(np.array(angle)))
    assert -np.pi / 4 <= normal < 3 * np.pi / 4
    same = corners(np.array([[0, 0, 8, 4, angle], [0, 0, 8, 4, normal]]))
    assert min(np.abs(same[0] - np.roll(same[1], turn, 0)).max() for turn in (0, 2)) < 1e-9


@pytest.mark.parametrize(
    ("one", "other", "low", "high"),
    [
        ([0, 0, 20, 10, 0.3], [0, 0, 20, 10, 0.3], 0.99, 1),
        ([0, 0, 20, 10, 0.3], [0, 0, 20, 10, 0.3 + np.pi], 0.99, 1),
        ([0, 0, 20, 20, 0], [0, 0, 20, 20, 0.7], 0.99, 1),  # a square's covariance has no direction
        ([0, 0, 20, 2, 0], [0, 0, 20, 2, np.pi / 2], 0, 0.5),
        ([0, 0, 20, 10, 0], [500, 0, 20, 10, 0], 0, 0.01),
    ],
)
def test_overlap(one, other, low, high):
    assert low - 1e-6 <= probiou(np.array([one]), np.array([other]))[0, 0] <= high


def test_a_suppressed_box_suppresses_others():
    """As Fast NMS does; greedy suppression would keep the third, which only the second overlaps."""
    boxes = np.array([[0, 0, 20, 20, 0], [6, 0, 20, 20, 0], [12, 0, 20, 20, 0]], float)
    first, second = probiou(boxes[:1], boxes[1:])[0]
    threshold = (first + second) / 2
    assert suppress(boxes, np.zeros(3), threshold).tolist() == [0]
    assert suppress(boxes, np.arange(3), threshold).tolist() == [0, 1, 2]


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.05, 0.3, 0.45, 0.7, 0.95, 1.0]), st.sampled_from([20, 90, 400])
)
def test_suppression_leaves_out_what_overlaps_pair_by_pair(seed, threshold, spread):
    """Pairs that are too far from each other are not computed; none of them would have counted."""
    random = np.random.default_rng(seed)
    boxes = random.uniform([0, 0, 1, 1, -1], [spread, spread, 50, 50, 3], (40, 5))
    classes = random.integers(0, 2, 40)
    better = np.triu(probiou(boxes, boxes) > threshold, k=1) & (classes[:, None] == classes)
    assert suppress(boxes, classes, threshold).tolist() == np.flatnonzero(~better.any(0)).tolist()


SQUARE = ((0.0, 0.0), (10.0, 0.0), (10.0, 10.0), (0.0, 10.0))


@pytest.mark.parametrize(("shift", "expected"), [(0, 1), (5, 1 / 3), (20, 0)])
def test_the_self_test_compares_corners(shift, expected):
    moved = tuple((x + shift, y) for x, y in SQUARE)
    assert rotated_iou(SQUARE, moved) == pytest.approx(expected, abs=1e-6)
    found = RotatedBox(0, "a", 0.9, moved, (5.0 + shift, 5.0), (10.0, 10.0), 0.0)
    assert agrees(found, Prediction(0, "a", score=0.9, corners=SQUARE)) is (shift == 0)


@pytest.mark.parametrize(("moved", "agree"), [("head", False), ("foot", True), (None, True)])
def test_the_self_test_compares_clear_keypoints(moved, agree):
    points = {"head": (10.0, 10.0, 0.9), "foot": (50.0, 90.0, 0.2)}
    golden = Prediction(0, "a", score=0.9, box=(0, 0, 100, 100), keypoints=tuple(points.values()))
    if moved:
        points[moved] = (points[moved][0] + 9, *points[moved][1:])
    assert agrees(Pose(0, "a", 0.9, (0.0, 0.0, 100.0, 100.0), points), golden) is agree


@pytest.mark.parametrize(
    ("task", "params"), [("pose", {"form": "yolo"}), ("obb", {"form": "coco"}), ("obb", {"mask": 1})]
)
def test_unknown_options_are_refused(task, params):
    with pytest.raises(RequestError, match=next(iter(params))):
        options_of(task, params)
