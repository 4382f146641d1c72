"""The served graph's two ends: pixels in, small answers out."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from export.heads import CANDIDATES, OBJECTS, Head, Pixels, candidates
from zoo.card import Recipe
from zoo.errors import ExportError
from zoo.model_card import Normalise

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def test_keypoints_follow_their_boxes(make_card):
    raw = {"boxes": torch.rand(2, 9, 4), "scores": torch.rand(2, 9, 1), "keypoints": torch.rand(2, 9, 17, 3)}
    got = Head(make_card("pose"), 1)(raw)
    assert got["keypoints"].shape == (2, 9, 17, 3)
    for row in range(2):
        order = raw["scores"][row, :, 0].argsort(descending=True)
        torch.testing.assert_close(got["keypoints"][row], raw["keypoints"][row, order])
        torch.testing.assert_close(got["boxes"][row], raw["boxes"][row, order])


def test_rotated_boxes_have_five_numbers(make_card):
    raw = {"boxes": torch.rand(2, 9, 5), "scores": torch.rand(2, 9, 15)}
    assert Head(make_card("obb"), 15)(raw)["boxes"].shape == (2, 9, 5)


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_pixels_are_normalised_then_ordered(channels):
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), np.uint8)
    expected = ((images - np.array(MEAN)) / np.array(STD)).transpose(0, 3, 1, 2)
    got = Pixels(Normalise(MEAN, STD, channels))(torch.from_numpy(images)).numpy()
    assert got.shape == (2, 3, 5, 7)
    np.testing.assert_allclose(got, expected[:, ::-1] if channels == "bgr" else expected, atol=1e-5)


def test_each_image_is_divided_by_its_own_brightest_value():
    """As U-2-Net's and rembg's preparation; a black image stays black."""
    images = np.random.default_rng(0).integers(0, 100, (3, 5, 7, 3), np.uint8)
    images[0] //= 2
    images[2] = 0
    expected = images / images.max(axis=(1, 2, 3), keepdims=True).clip(1) * 255
    got = Pixels(Normalise(MEAN, STD, brightest=True))(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(got, ((expected - MEAN) / STD).transpose(0, 3, 1, 2), atol=1e-5)


def test_grey_is_pillows_grey():
    images = np.random.default_rng(0).integers(0, 256, (1, 40, 30, 3), np.uint8)
    got = Pixels(Normalise((0.0,) * 3, (255.0,) * 3, "grey"))(torch.from_numpy(images)).numpy()
    assert got.shape == (1, 1, 40, 30)
    pillow = np.asarray(Image.fromarray(images[0]).convert("L"))
    assert np.abs(got[0, 0] * 255 - pillow).max() <= 1  # Pillow rounds to whole levels


def test_probabilities_are_the_softmax(make_card):
    logits = torch.tensor([[0.0, np.log(3.0)] + [-100.0] * 8])
    got = Head(make_card("classify"), 10)({"logits": logits})
    np.testing.assert_allclose(got["probabilities"][0, :3].numpy(), [0.25, 0.75, 0], atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    arrays.arrays(
        np.float32, st.tuples(st.just(2), st.integers(1, 30), st.integers(1, 5)), elements=st.floats(0, 1, width=32)
    )
)
def test_candidates_are_sorted_and_belong_together(scores):
    batch, anchors, _ = scores.shape
    boxes = np.arange(batch * anchors * 4, dtype=np.float32).reshape(batch, anchors, 4)
    raw = {"boxes": torch.from_numpy(boxes), "scores": torch.from_numpy(scores)}
    got = {name: value.numpy() for name, value in candidates(raw, CANDIDATES).items()}
    assert got["classes"].dtype == np.int32
    for image in range(batch):
        np.testing.assert_array_equal(got["scores"][image], np.sort(scores[image].max(1))[::-1])
        anchor = (got["boxes"][image, :, 0] / 4).astype(int) - image * anchors  # a box says which candidate it was
        assert sorted(anchor) == list(range(anchors))
        np.testing.assert_array_equal(got["boxes"][image], boxes[image, anchor])
        np.testing.assert_array_equal(scores[image, anchor, got["classes"][image]], got["scores"][image])


@pytest.mark.parametrize(("anchors", "kept"), [(3, 3), (CANDIDATES, CANDIDATES), (2535, CANDIDATES)])
def test_at_most_a_thousand_candidates(anchors, kept):
    scores = torch.rand(1, anchors, 4)
    got = candidates({"boxes": torch.rand(1, anchors, 4), "scores": scores}, CANDIDATES)
    assert got["boxes"].shape == (1, kept, 4)
    assert got["scores"].min() >= scores.max(2).values[0].sort(descending=True).values[kept - 1]


def test_the_scores_of_all_classes_stay_with_their_boxes(make_card):
    raw = {"boxes": torch.rand(2, 20, 4), "scores": torch.rand(2, 20, 80)}
    got = Head(make_card("detect", class_scores=True), 80, limit=7)(raw)
    assert got["class_scores"].shape == (2, 7, 80)
    best, classes = got["class_scores"].max(2)
    assert torch.equal(best, got["scores"])
    assert torch.equal(classes.int(), got["classes"])


@pytest.mark.parametrize(
    ("task", "raw"),
    [
        ("classify", {"logits": torch.rand(1, 80)}),
        ("detect", {"boxes": torch.rand(1, 9, 4), "scores": torch.rand(1, 9), "classes": torch.zeros(1, 9)}),
    ],
)
def test_class_scores_that_there_are_not_are_refused(make_card, task, raw):
    with pytest.raises(ExportError, match="no scores of several classes of a box"):
        Head(make_card(task, class_scores=True), 80)(raw)


def test_boxes_that_have_their_class_keep_it(make_card):
    raw = {"boxes": torch.rand(2, 400, 4), "scores": torch.rand(2, 400), "classes": torch.randint(0, 80, (2, 400))}
    got = Head(make_card("detect"), 80, limit=OBJECTS)(raw)
    best = raw["scores"].argmax(1)
    assert got["boxes"].shape == (2, OBJECTS, 4)
    assert got["classes"].dtype == torch.int32
    assert torch.equal(got["classes"][:, 0].long(), raw["classes"][[0, 1], best])


def test_coefficients_stay_with_their_boxes(make_card):
    boxes = torch.rand(2, 50, 4)
    coefficients = boxes.repeat(1, 1, 8)  # each candidate's coefficients name its box
    raw = {"boxes": boxes, "scores": torch.rand(2, 50, 80), "coefficients": coefficients}
    got = Head(make_card("segment", labels="coco80"), 80)(raw | {"prototypes": torch.rand(2, 32, 16, 24)})
    assert got["prototypes"].shape == (2, 32, 16, 24)
    assert torch.equal(got["coefficients"], got["boxes"].repeat(1, 1, 8))


@pytest.mark.parametrize("size", [(64, 96), (8, 12), (9, 13)])
def test_a_mask_has_the_size_of_the_input(make_card, size):
    logits = torch.randn(2, 21, *size, generator=torch.Generator().manual_seed(0))
    mask = Head(make_card("segment"), 21)({"logits": logits})["mask"]
    assert mask.dtype == torch.uint8
    expected = F.interpolate(logits, (64, 96), mode="bilinear", align_corners=False).argmax(1)
    assert torch.equal(mask.long(), expected)


def test_opacity_is_rounded_to_bytes(make_card):
    alpha = torch.zeros(1, 1, 64, 96)
    alpha[0, 0, 0, :5] = torch.tensor([0.0, 1.0, 0.5, 0.3, 1.0000001])
    got = Head(make_card("segment"), 2)({"alpha": alpha})["alpha"]
    assert got.dtype == torch.uint8
    assert got[0, 0, :5].tolist() == [0, 255, 128, 76, 255]


def test_each_images_opacity_is_stretched_by_its_own_extremes(make_card):
    alpha = torch.full((3, 1, 64, 96), 0.25)
    alpha[0, 0, 0, :3], alpha[1, 0, 0, 0] = torch.tensor([0.0, 0.5, 0.1]), 0.75  # the third has one value everywhere
    head = Head(make_card("segment", min_max=True), 2)
    got = head({"alpha": alpha})["alpha"]
    assert got[:, 0, :4].tolist() == [[0, 255, 51, 128], [255, 0, 0, 0], [0, 0, 0, 0]]
    for row in range(3):
        assert torch.equal(got[row : row + 1], head({"alpha": alpha[row : row + 1]})["alpha"])
    with pytest.raises(ExportError, match="no opacity of a salient object, so it has no `min_max`"):
        head({"logits": torch.rand(1, 2, 8, 8)})


@pytest.mark.parametrize(
    ("task", "classes", "raw"),
    [
        ("classify", 10, {"logits": (2, 9)}),
        ("classify", 10, {"probabilities": (2, 10)}),
        ("detect", 80, {"boxes": (2, 5, 4), "scores": (2, 5, 79)}),
        ("detect", 80, {"boxes": (2, 5, 4)}),
        ("detect", 80, {"boxes": (2, 4, 5), "scores": (2, 5, 80)}),
        ("pose", 1, {"boxes": (2, 9, 4), "scores": (2, 9, 1)}),
        ("pose", 1, {"boxes": (2, 9, 4), "scores": (2, 9, 1), "keypoints": (2, 9, 16, 3)}),
        ("obb", 15, {"boxes": (2, 9, 4), "scores": (2, 9, 15)}),
        ("segment", 21, {"logits": (2, 20, 8, 8)}),
        ("segment", 21, {"logits": (2, 21)}),
        ("segment", 2, {"alpha": (2, 1, 32, 32)}),
    ],
)
def test_answers_of_another_task_are_refused(make_card, task, classes, raw):
    head = Head(make_card(task), classes)
    with pytest.raises(ExportError, match=f"net: the network answers .* the task {task} .* needs"):
        head({name: torch.zeros(shape) for name, shape in raw.items()})


def test_a_mask_of_bytes_has_no_room_for_a_thousand_classes(make_card):
    with pytest.raises(ExportError, match="net: 1000 classes do not fit into a mask of bytes"):
        Head(make_card("segment", labels="imagenet1k"), 1000)


def test_the_masks_size_is_the_recipes(make_card):
    card = make_card("segment", recipe=Recipe(20, 30, "stretch"))
    assert Head(card, 21)({"logits": torch.zeros(1, 21, 4, 4)})["mask"].shape == (1, 20, 30)
