"""Golden answers: predictions on the image itself, and what a card expects of them."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from export.golden import Photo, golden_answer, on_image, predictions
from zoo import catalog
from zoo.card import Recipe
from zoo.errors import ExportError
from zoo.files import sha256_of
from zoo.labels import read_labels
from zoo.model_card import Expectation
from zoo.recipe import placement
from zoo.served_card import Prediction

LETTERBOX = Recipe(64, 96, "letterbox")


def classification(*top: tuple[int, float]) -> dict[str, np.ndarray]:
    probabilities = np.zeros((1, 10), np.float32)
    for label, score in top:
        probabilities[0, label] = score
    return {"probabilities": probabilities}


def test_the_top_five(make_card):
    outputs = classification((3, 0.5), (1, 0.2), (0, 0.1), (9, 0.08), (5, 0.07), (4, 0.05))
    got = predictions(make_card("classify"), read_labels("digits"), outputs, placement(LETTERBOX, 28, 28))
    assert [(p.class_id, p.label) for p in got] == [(3, "3"), (1, "1"), (0, "0"), (9, "9"), (5, "5")]
    assert got[0].score == pytest.approx(0.5)


def detections(*found: tuple[int, float, list[float]]) -> dict[str, np.ndarray]:
    classes, scores, boxes = zip(*found, strict=True)
    return {
        "boxes": np.array([boxes], np.float32),
        "scores": np.array([scores], np.float32),
        "classes": np.array([classes], np.int32),
    }


@pytest.mark.parametrize("size", [(600, 400), (300, 451), (17, 900), (96, 64)])
@pytest.mark.parametrize("resize", ["letterbox", "stretch"])
def test_boxes_are_on_the_image(make_card, size, resize):
    card = make_card("detect", recipe=Recipe(64, 96, resize))
    where = placement(card.recipe, *size)
    on_photo = np.array([0.25, 0.5, 0.75, 1.0]) * (*size, *size)
    on_input = on_photo * ([where.scale_x, where.scale_y] * 2) + ([where.offset_x, where.offset_y] * 2)
    got = predictions(card, read_labels("coco80"), detections((41, 0.9, on_input.tolist())), where)
    assert [(p.class_id, p.label) for p in got] == [(41, "cup")]
    np.testing.assert_allclose(got[0].box, on_photo, atol=0.01 * max(size))


def test_boxes_are_suppressed_per_class_clipped_and_sure(make_card):
    found = detections(
        (41, 0.9, [10, 10, 50, 50]),
        (41, 0.8, [11, 11, 51, 51]),  # the same cup
        (41, 0.7, [10, 31, 50, 71]),  # half of it: IoU .31
        (45, 0.6, [10, 10, 50, 50]),  # a bowl in the same place
        (0, 0.55, [-20, -30, 500, 20]),
        (0, 0.49, [80, 0, 90, 20]),
        (0, 0.95, [-20, 10, -5, 30]),  # beside the image
    )
    got = predictions(make_card("detect"), read_labels("coco80"), found, placement(LETTERBOX, 96, 64))
    assert [(p.label, round(p.score, 2)) for p in got] == [("cup", 0.9), ("cup", 0.7), ("bowl", 0.6), ("person", 0.55)]
    assert got[3].box == (0, 0, 96, 20)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 700), st.integers(1, 700))
def test_a_masks_border_is_not_part_of_the_image(width, height):
    where = placement(LETTERBOX, width, height)
    left, top = int(where.offset_x), int(where.offset_y)
    mask = np.zeros((64, 96), np.uint8)
    mask[top : top + round(height * where.scale_y), left : left + round(width * where.scale_x)] = 1
    got = on_image(mask, where)
    assert got.shape == (height, width)
    assert got.all()


def test_areas_are_shares_of_the_image(make_card):
    mask = np.zeros((1, 64, 96), np.uint8)
    mask[:, :, 32:40] = 8  # a 1:1 image lies in the columns 16 to 80
    mask[:, :, 40:72] = 15
    mask[:, 0, 16:80] = 3  # 64 of 4096 pixels
    mask[:, 63, 16:20] = 4  # 4 of 4096: too few
    where = placement(LETTERBOX, 640, 640)
    got = predictions(make_card("segment"), read_labels("voc21"), {"mask": mask}, where)
    assert [p.label for p in got] == ["person", "cat", "bird"]
    assert [p.area for p in got] == pytest.approx([0.5 * 63 / 64, 0.125 * 63 / 64, 1 / 64])


def test_half_opaque_pixels_are_the_object(make_card):
    alpha = np.zeros((1, 64, 96), np.uint8)
    alpha[:, :16], alpha[:, 16:32] = 128, 127
    card = make_card("segment", labels="salient")
    got = predictions(card, read_labels("salient"), {"alpha": alpha}, placement(LETTERBOX, 96, 64))
    assert got == (Prediction(1, "salient object", area=0.25),)


def instances(*found: tuple[int, float, list[float], list[float]]) -> dict[str, np.ndarray]:
    """Objects with coefficients of two prototypes of a 64 x 96 input: its left half, and all of it."""
    left = np.where(np.arange(24) < 12, 10, -10) * np.ones((16, 1))
    return detections(*((class_id, score, box) for class_id, score, box, _ in found)) | {
        "coefficients": np.float32([[coefficients for *_, coefficients in found]]),
        "prototypes": np.float32([[left, np.full_like(left, 10)]]),
    }


def test_instances_have_the_areas_of_their_masks(make_card):
    outputs = instances(
        (41, 0.9, [16, 0, 80, 32], [0, 1]),  # the upper half of a 1:1 image
        (41, 0.8, [17, 0, 80, 32], [0, 1]),  # the same
        (45, 0.7, [32, 16, 64, 48], [1, 0]),  # half of it is on the left
        (0, 0.6, [-40, -9, 32, 999], [0, 1]),  # half in the image, over its whole height
        (0, 0.4, [16, 0, 80, 64], [0, 1]),
    )
    got = predictions(make_card("segment"), read_labels("coco80"), outputs, placement(LETTERBOX, 640, 640))
    assert [(p.label, round(p.score, 2)) for p in got] == [("cup", 0.9), ("bowl", 0.7), ("person", 0.6)]
    assert [p.area for p in got] == pytest.approx([1 / 2, 1 / 8, 1 / 4])
    assert [p.box for p in got] == [(0, 0, 640, 320), (160, 160, 480, 480), (0, 0, 160, 640)]


def test_poses_are_on_the_image_and_clipped(make_card):
    outputs = detections((0, 0.9, [16, 0, 80, 32]), (0, 0.8, [17, 0, 80, 32]), (0, 0.4, [16, 0, 80, 64]))
    points = np.zeros((1, 3, 17, 3), np.float32)
    points[0, 0, 0], points[0, 0, 16] = (48, 16, 0.75), (90, -5, 0.25)  # the second is beyond the image
    got = predictions(make_card("pose"), ("person",), outputs | {"keypoints": points}, placement(LETTERBOX, 640, 640))
    assert [(p.label, p.box) for p in got] == [("person", (0, 0, 640, 320))]
    assert (got[0].keypoints[0], got[0].keypoints[16]) == ((320, 160, 0.75), (640, 0, 0.25))


def test_rotated_boxes_are_on_the_image_and_suppressed_per_class(make_card):
    outputs = detections(
        (3, 0.9, [48, 32, 20, 10, 0]),
        (3, 0.8, [49, 32, 20, 10, 0]),  # the same
        (4, 0.7, [48, 32, 20, 10, np.pi / 2]),
        (3, 0.4, [20, 32, 20, 10, 0]),
    )
    got = predictions(make_card("obb"), read_labels("dota15"), outputs, placement(LETTERBOX, 640, 640))
    assert [(p.label, round(p.score, 2), p.box) for p in got] == [
        ("baseball diamond", 0.9, None),
        ("tennis court", 0.7, None),
    ]
    assert got[0].corners == ((220, 270), (420, 270), (420, 370), (220, 370))
    np.testing.assert_allclose(got[1].corners, [(370, 220), (370, 420), (270, 420), (270, 220)], atol=1e-4)


@pytest.mark.parametrize(
    ("task", "expected", "outputs", "complaint"),
    [
        ("classify", Expectation("coffee", "3", 0.4), classification((3, 0.5), (1, 0.2)), None),
        (
            "classify",
            Expectation("coffee", "3", 0.6),
            classification((3, 0.5), (1, 0.2)),
            "'3' first, with a score of at least 0.6, but the network found 3 0.500, 1 0.200",
        ),
        (
            "classify",
            Expectation("coffee", "1", 0.1),
            classification((3, 0.5), (1, 0.2)),
            "'1' first, with a score of at least 0.1",
        ),
        ("classify", Expectation("chelsea", "1"), classification((3, 0.5)), None),
        (
            "detect",
            Expectation("coffee", "cup", 0.8),
            detections((45, 0.9, [0, 0, 9, 9]), (41, 0.85, [0, 0, 9, 9])),
            None,
        ),
        (
            "detect",
            Expectation("coffee", "cup", 0.8),
            detections((45, 0.9, [0, 0, 9, 9]), (41, 0.75, [0, 0, 9, 9])),
            "'cup' with a score of at least 0.8, but the network found bowl 0.900, cup 0.750",
        ),
        ("detect", Expectation("coffee", "cup"), detections((41, 0.1, [0, 0, 9, 9])), "the network found nothing"),
        ("segment", Expectation("coffee", "cat", area=(0.9, 1)), {"mask": np.full((1, 64, 96), 8, np.uint8)}, None),
        (
            "segment",
            Expectation("coffee", "cat", area=(0.1, 0.9)),
            {"mask": np.full((1, 64, 96), 8, np.uint8)},
            "'cat' on 10% to 90% of the image, but the network found cat 1.000",
        ),
        ("segment", Expectation("coffee", "dog"), {"mask": np.full((1, 64, 96), 8, np.uint8)}, "'dog' on 1% to 100%"),
        ("segment", Expectation("coffee", "dog", 0.8), instances((12, 0.9, [0, 0, 96, 32], [0, 1])), None),
        ("segment", Expectation("coffee", "dog", 0.8, (0.4, 0.6)), instances((12, 0.9, [0, 0, 96, 32], [0, 1])), None),
        (
            "segment",
            Expectation("coffee", "dog", 0.95),
            instances((12, 0.9, [0, 0, 96, 32], [0, 1])),
            "'dog' with a score of at least 0.95, but the network found dog 0.900",
        ),
        (
            "segment",
            Expectation("coffee", "dog", 0.8, (0.6, 1)),
            instances((12, 0.9, [0, 0, 96, 32], [0, 1])),
            "'dog' with a score of at least 0.8 on 60% to 100% of the image, but the network found dog 0.900",
        ),
    ],
)
def test_what_a_card_expects(make_card, task, expected, outputs, complaint):
    card = make_card(task, expect=(expected,))
    path = catalog.sample("coffee")
    photo = Photo("coffee", path, Image.open(path).convert("RGB"))
    if complaint is None:
        golden = golden_answer(card, read_labels(card.labels), photo, outputs)
        assert (golden.photo, golden.sha256) == (f"coffee{Path(path).suffix}", sha256_of(path))
    else:
        with pytest.raises(ExportError, match="net: on the photo 'coffee' the card expects") as caught:
            golden_answer(card, read_labels(card.labels), photo, outputs)
        assert complaint in str(caught.value)
