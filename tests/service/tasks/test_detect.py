"""detect: thresholds and non-maximum suppression of known candidates, and boxes in pixels of the image."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.tasks.detect import Options, answer, to_image_pixels
from zoo.card import Nms, Recipe
from zoo.recipe import Placement, placement

SQUARE = Placement(100, 100, 1.0, 1.0, 0.0, 0.0)


class Card(msgspec.Struct):
    labels: tuple[str, ...] = ("cat", "dog")
    nms: bool = True
    nms_options: Nms = Nms()


def outputs(*candidates):
    """Candidates as (class, score, x0, y0, x1, y1), best first."""
    table = np.array(candidates, np.float32).reshape(-1, 6)
    return {"classes": table[None, :, 0].astype(np.int32), "scores": table[None, :, 1], "boxes": table[None, :, 2:]}


@pytest.mark.parametrize(
    ("candidates", "options", "found"),
    [
        ([], {}, []),
        ([(0, 0.2, 0, 0, 9, 9)], {}, []),
        ([(0, 0.25, 0, 0, 9, 9)], {}, [("cat", 0.25)]),
        # the second cat overlaps the first, the dog does too but is no cat
        (
            [(0, 0.9, 0, 0, 50, 50), (0, 0.8, 2, 2, 50, 50), (1, 0.7, 0, 0, 50, 50), (0, 0.6, 60, 60, 90, 90)],
            {},
            [("cat", 0.9), ("dog", 0.7), ("cat", 0.6)],
        ),
        ([(0, 0.9, 0, 0, 50, 50), (0, 0.8, 2, 2, 50, 50)], {"iou_threshold": 1.0}, [("cat", 0.9), ("cat", 0.8)]),
        ([(0, 0.9, 0, 0, 50, 50), (1, 0.8, 0, 0, 50, 50)], {"max_detections": 1}, [("cat", 0.9)]),
        ([(0, 0.9, 0, 0, 50, 50), (1, 0.8, 0, 0, 50, 50)], {"score_threshold": 0.85}, [("cat", 0.9)]),
        # wholly outside the image
        ([(0, 0.9, -30, 0, -10, 50)], {}, []),
    ],
)
def test_the_options_select_objects(candidates, options, found):
    predictions = answer(outputs(*candidates), 0, Card(), SQUARE, Options(**options))
    assert [(p.label, pytest.approx(p.score)) for p in predictions] == found


def test_without_nms_overlapping_boxes_stay():
    candidates = outputs((0, 0.9, 0, 0, 50, 50), (0, 0.8, 0, 0, 50, 50))
    assert len(answer(candidates, 0, Card(nms=False), SQUARE, Options())) == 2


def test_options_that_are_left_out_are_the_cards():
    card = Card(nms_options=Nms(score_threshold=0.5, iou_threshold=0.9, max_detections=2, class_agnostic=True))
    candidates = outputs(
        (0, 0.9, 0, 0, 50, 50),
        (1, 0.8, 0, 0, 50, 50),
        (0, 0.7, 0, 0, 50, 40),
        (0, 0.6, 9, 9, 20, 20),
        (0, 0.4, 80, 80, 90, 90),
    )

    def found(**options):
        return [p.score for p in answer(candidates, 0, card, SQUARE, Options(**options))]

    assert found() == pytest.approx([0.9, 0.7])  # the dog lies exactly on the better cat
    assert found(max_detections=5) == pytest.approx([0.9, 0.7, 0.6])
    assert found(iou_threshold=0.75, max_detections=5) == pytest.approx([0.9, 0.6])
    assert found(score_threshold=0.3, max_detections=9) == pytest.approx([0.9, 0.7, 0.6, 0.4])


@pytest.mark.parametrize(
    ("several", "nms", "candidates", "found"),
    [
        (True, True, 1000, [(0, 0.9), (1, 0.8), (1, 0.6), (0, 0.5)]),
        (True, True, 1, [(0, 0.9), (1, 0.6)]),
        (False, True, 1000, [(0, 0.9), (1, 0.8), (0, 0.5)]),
        (True, False, 1000, [(0, 0.9), (1, 0.8), (1, 0.6), (0, 0.5)]),
        (False, False, 1000, [(0, 0.9), (1, 0.8), (0, 0.5)]),
    ],
)
def test_a_candidate_has_several_labels_where_the_card_says_so(several, nms, candidates, found):
    card = Card(nms=nms, nms_options=Nms(multi_label=several, candidates=candidates))
    both = outputs((0, 0.9, 0, 0, 50, 50), (1, 0.8, 50, 50, 90, 90), (0, 0.5, 60, 0, 90, 30))
    both["class_scores"] = np.float32([[[0.9, 0.6], [0.1, 0.8], [0.5, 0.2]]])
    assert [(p.class_id, pytest.approx(p.score)) for p in answer(both, 0, card, SQUARE, Options())] == found


@pytest.mark.parametrize(
    ("clip_first", "most", "boxes", "scores"),
    [
        # of what the image shows of them, they are much the same: 50 x 50 and 50 x 46 pixels
        (False, 2, [(0, 0.9, -70, 0, 50, 50), (0, 0.8, 0, 0, 50, 46)], [0.9, 0.8]),
        (True, 2, [(0, 0.9, -70, 0, 50, 50), (0, 0.8, 0, 0, 50, 46)], [0.9]),
        # and beyond the image only
        (False, 2, [(0, 0.9, -90, 0, 20, 50), (0, 0.8, -90, 0, 5, 50)], [0.9]),
        (True, 2, [(0, 0.9, -90, 0, 20, 50), (0, 0.8, -90, 0, 5, 50)], [0.9, 0.8]),
        # a box beside the image takes no place
        (False, 1, [(0, 0.9, -90, 0, -5, 50), (0, 0.8, 0, 0, 5, 50)], []),
        (True, 1, [(0, 0.9, -90, 0, -5, 50), (0, 0.8, 0, 0, 5, 50)], [0.8]),
    ],
)
def test_boxes_are_clipped_before_or_after_suppression(clip_first, most, boxes, scores):
    card = Card(nms_options=Nms(max_detections=most, clip_first=clip_first))
    found = answer(outputs(*boxes), 0, card, SQUARE, Options())
    assert [p.score for p in found] == pytest.approx(scores)


def test_boxes_return_by_one_scale_where_the_recipe_says_so():
    for one_scale, right in ((False, 333.0), (True, pytest.approx(138 / 0.416))):
        recipe = Recipe(416, 416, "letterbox_top_left", rounding="floor", one_scale=one_scale)
        where = placement(recipe, 333, 1000)  # scaled to 138 x 416 pixels
        assert to_image_pixels(np.float32([[0, 0, 138, 416]]), where)[0].tolist() == [0, 0, right, 1000]


def test_boxes_are_clipped_to_the_image():
    (prediction,) = answer(outputs((0, 0.9, -5, 20, 130, 70)), 0, Card(), SQUARE, Options())
    assert prediction.box == (0, 20, 100, 70)


@given(
    width=st.integers(1, 5000),
    height=st.integers(1, 5000),
    resize=st.sampled_from(["letterbox", "stretch"]),
    share=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_a_box_is_mapped_back_to_its_position(width, height, resize, share):
    where = placement(Recipe(416, 416, resize), width, height)
    box = np.array([min(share[0], share[1]) * width, min(share[2], share[3]) * height] * 2)
    box[2], box[3] = max(share[0], share[1]) * width, max(share[2], share[3]) * height
    inside = box * np.tile([where.scale_x, where.scale_y], 2)
    inside = inside + np.tile([where.offset_x, where.offset_y], 2)
    back = to_image_pixels(inside[None].astype(np.float64), where)[0]
    assert back == pytest.approx(box, abs=1e-6 * max(width, height))
