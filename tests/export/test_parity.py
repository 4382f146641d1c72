"""Parity: float noise passes, anything else does not."""

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from export.network import Network
from export.parity import _rows, differences, measure, tolerances
from export.reference import Reference
from tests.export.any_batch import convert
from zoo.errors import ExportError


def detections(scores, boxes, classes) -> dict[str, np.ndarray]:
    return {
        "boxes": np.array([boxes], np.float32),
        "scores": np.array([scores], np.float32),
        "classes": np.array([classes], np.int32),
    }


LEFT, RIGHT = [0, 0, 10, 10], [20, 0, 30, 10]
FOUND = detections([0.9, 0.8, 0.01], [LEFT, RIGHT, LEFT], [3, 3, 5])


@pytest.mark.parametrize(
    ("actual", "boxes", "scores"),
    [
        (FOUND, 0, 0),
        (detections([0.9, 0.8, 0.01], [LEFT, [20, 0, 30, 10.5], LEFT], [3, 3, 5]), 0.5, 0),
        (detections([0.9, 0.79999, 0.01], [LEFT, RIGHT, LEFT], [3, 3, 5]), 0, 1e-5),
        (detections([0.9, 0.7, 0.01], [LEFT, RIGHT, LEFT], [3, 3, 5]), np.inf, 0.1),
        (detections([0.9, 0.8, 0.01], [LEFT, RIGHT, LEFT], [3, 4, 5]), np.inf, 0),
        (detections([0.9, 0.8, 0.01], [LEFT, RIGHT, RIGHT], [3, 3, 6]), 0, 0),  # noise may be another noise
        (detections([0.9, 0.8, 0.01], [LEFT, [np.nan] * 4, LEFT], [3, 3, 5]), np.nan, 0),
    ],
)
def test_candidates_are_compared_with_their_counterparts(actual, boxes, scores):
    got = differences(FOUND, actual, 1e-3)
    assert got["boxes"] == pytest.approx(boxes, nan_ok=True)
    assert got["scores"] == pytest.approx(scores, abs=1e-6)


def test_candidates_that_tie_may_change_places():
    tied = detections([0.9, 0.9], [LEFT, RIGHT], [3, 3])
    assert differences(tied, detections([0.9, 0.9], [RIGHT, LEFT], [3, 3]), 1e-3) == {"boxes": 0, "scores": 0}


def instances(found, coefficients, prototype=0.0) -> dict[str, np.ndarray]:
    prototypes = np.full((1, 2, 3, 3), prototype, np.float32)
    return found | {"coefficients": np.array([coefficients], np.float32), "prototypes": prototypes}


TWO = detections([0.9, 0.9], [LEFT, RIGHT], [3, 3])
SWAPPED = detections([0.9, 0.9], [RIGHT, LEFT], [3, 3])


@pytest.mark.parametrize(
    ("actual", "coefficients", "prototypes"),
    [
        (instances(TWO, [[1, 2], [3, 4]]), 0, 0),
        (instances(TWO, [[1, 2], [3, 4.5]], prototype=0.25), 0.5, 0.25),
        (instances(SWAPPED, [[3, 4], [1, 2]]), 0, 0),  # with their boxes
        (instances(SWAPPED, [[1, 2], [3, 4]]), 2, 0),  # without
        (instances(TWO, [[1, np.nan], [3, 4]]), np.nan, 0),
        (instances(detections([0.9, 0.9], [LEFT, RIGHT], [3, 5]), [[1, 2], [3, 4]]), 2, 0),  # the other is no match
        (instances(detections([0.5, 0.5], [LEFT, RIGHT], [3, 3]), [[1, 2], [3, 4]]), np.inf, 0),
    ],
)
def test_coefficients_go_with_their_candidates(actual, coefficients, prototypes):
    got = differences(instances(TWO, [[1, 2], [3, 4]]), actual, 1e-3)
    assert got.keys() == {"boxes", "scores", "coefficients", "prototypes"}
    assert got["coefficients"] == pytest.approx(coefficients, nan_ok=True)
    assert got["prototypes"] == pytest.approx(prototypes)


def test_of_equal_boxes_the_nearest_coefficients_count():
    twins = detections([0.9, 0.9], [LEFT, LEFT], [3, 3])
    got = differences(instances(twins, [[1, 2], [3, 4]]), instances(twins, [[3, 4.5], [1, 2]]), 1e-3)
    assert got["coefficients"] == 0.5


def test_keypoints_are_compared_with_those_of_the_nearest_box():
    pair = detections([0.9, 0.9], [LEFT, [v + 8 for v in LEFT]], [3, 3])
    points = np.arange(12, dtype=np.float32).reshape(1, 2, 2, 3)
    turned = {name: value[:, ::-1] for name, value in pair.items()}
    moved = points.copy()
    moved[0, 1, 1, 0] += 0.25
    got = differences(pair | {"keypoints": points}, turned | {"keypoints": moved[:, ::-1]}, 1e-3)
    assert got == {"boxes": 0, "keypoints": 0.25, "scores": 0}


@pytest.mark.parametrize(
    ("name", "expected", "actual", "difference"),
    [
        ("probabilities", np.float32([[0.5, 0.5]]), np.float32([[0.75, 0.25]]), 0.25),
        ("mask", np.uint8([[[0, 8], [8, 8]]]), np.uint8([[[0, 8], [8, 20]]]), 0.25),
        ("alpha", np.uint8([[[0, 255], [7, 9]]]), np.uint8([[[0, 254], [7, 8]]]), 0.5),
        # each image's map by its own scale
        ("activation", np.float32([[[1, -4]], [[100, 0]]]), np.float32([[[1, -3]], [[101, 0]]]), 0.25),
        ("activation", np.float32([[[0, 0]]]), np.float32([[[0, 0]]]), 0),
        ("embedding", np.float32([[1, -4]]), np.float32([[1, -3]]), 0.25),
        ("logits", np.float32([[100, -50], [1, 1]]), np.float32([[100, -40], [1, 1]]), 0.1),
        ("logits", np.float32([[4, -np.inf]]), np.float32([[3, -np.inf]]), 0.25),
        ("logits", np.float32([[4, -np.inf]]), np.float32([[4, 0]]), np.inf),
        ("logits", np.float32([[4, 0]]), np.float32([[4, np.nan]]), np.nan),
    ],
)
def test_differences_of_the_other_outputs(name, expected, actual, difference):
    assert differences({name: expected}, {name: actual}, 1e-3) == {name: pytest.approx(difference, nan_ok=True)}


@pytest.mark.parametrize(
    ("actual", "message"),
    [
        ({"logits": np.zeros((1, 2), np.float32)}, r"outputs \['logits'\], expected \['probabilities'\]"),
        ({"probabilities": np.zeros((1, 3), np.float32)}, r"float32\(1, 3\), expected float32\(1, 2\)"),
        ({"probabilities": np.zeros((1, 2), np.float64)}, r"float64\(1, 2\), expected float32"),
    ],
)
def test_other_outputs_are_refused(actual, message):
    with pytest.raises(ExportError, match=message):
        differences({"probabilities": np.zeros((1, 2), np.float32)}, actual, 1e-3)


@given(st.integers(1, 20), st.integers(1, 10))
def test_every_image_is_in_a_batch(count, size):
    rows = list(_rows(count, size))
    assert {row for batch in rows for row in batch} == set(range(count))
    assert {len(batch) for batch in rows} == {size}


@pytest.fixture
def case(make_card, make_net, make_images, tmp_path):
    """A converted classifier: its card, its network, its file, real images and the reference's answers."""
    card = make_card("classify")
    images = make_images(card.recipe, "chelsea", "coffee", "rocket", "astronaut")
    network = Network(make_net("classify", 10), "torch")
    reference = Reference(card, network, 10)
    onnx.save_model(convert(card, network, reference.head, reference.raw(images[:2])), tmp_path / "model.onnx")
    return card, network.module, tmp_path / "model.onnx", images, reference


def answers(reference, images):
    """The served outputs, and the logits behind them."""
    both = [reference.answers(image[None]) for image in images]
    return [outputs | {"logits": raw["logits"]} for outputs, raw in both]


def test_parity_is_measured_at_every_batch_size(case):
    card, _, model, images, reference = case
    parity = measure(card, model, "torch 1", images, answers(reference, images))
    assert (parity.reference, parity.batches) == ("torch 1", (1, 3, 8))
    assert parity.tolerance == {"probabilities": 1e-4, "logits": 1e-4}
    assert list(parity.max_difference) == ["probabilities", "logits"]
    assert max(parity.max_difference.values()) < 1e-5


def test_what_a_saturated_softmax_hides_is_seen_in_the_logits(make_card, make_net, make_images, tmp_path):
    """Probabilities are 0 and 1 to the last bit, whatever becomes of the other classes."""
    card = make_card("classify")
    images = make_images(card.recipe, "chelsea", "coffee")
    network = Network(make_net("classify", 10), "torch")
    with torch.no_grad():
        network.module.convolution.bias[4] += 1000
    reference = Reference(card, network, 10)
    onnx.save_model(convert(card, network, reference.head, reference.raw(images)), tmp_path / "model.onnx")
    assert measure(card, tmp_path / "model.onnx", "torch 1", images, answers(reference, images))
    with torch.no_grad():
        network.module.convolution.weight[5] += 1.0
    otherwise = answers(reference, images)
    assert all(one["probabilities"].max() == 1 for one in otherwise)
    probabilities = [{"probabilities": one["probabilities"]} for one in otherwise]
    assert measure(card, tmp_path / "model.onnx", "torch 1", images, probabilities).max_difference["probabilities"] == 0
    with pytest.raises(ExportError, match=r"differs from torch 1 in logits by 0\.\d+ \(tolerance 0\.0001\)"):
        measure(card, tmp_path / "model.onnx", "torch 1", images, otherwise)


@pytest.mark.parametrize(
    ("tolerance", "allowed"),
    [
        ({}, {"boxes": 0.01, "scores": 1e-4, "mask": 1e-3, "y": 1e-4}),
        ({"boxes": 0.5}, {"boxes": 0.5, "scores": 1e-4, "mask": 1e-3, "y": 1e-4}),
        ({"y": 0.5, "scores": 0.1}, {"boxes": 0.01, "scores": 0.1, "mask": 1e-3, "y": 0.5}),
        (0.02, {"boxes": 0.02, "scores": 0.02, "mask": 0.02, "y": 0.02}),  # as cards were written before
    ],
)
def test_each_output_has_a_tolerance_of_its_own(make_card, tolerance, allowed):
    assert tolerances(make_card("detect", tolerance=tolerance), allowed) == allowed


def test_a_tolerance_of_no_output_is_refused(make_card):
    with pytest.raises(ExportError, match="net: `tolerance` names 'box'; the outputs are boxes, scores"):
        tolerances(make_card("detect", tolerance={"box": 0.1}), ["boxes", "scores"])


def test_boxes_may_differ_by_more_than_scores(make_card, make_net, make_images, tmp_path):
    """A tolerance for pixels is none for scores."""
    card = make_card("detect", tolerance={"boxes": 0.5})
    images = make_images(card.recipe, "chelsea", "coffee", "rocket")
    network = Network(make_net("detect", 80), "torch")
    reference = Reference(card, network, 80)
    onnx.save_model(convert(card, network, reference.head, reference.raw(images[:2])), tmp_path / "model.onnx")
    right = [reference(image[None]) for image in images]
    moved = [one | {"boxes": one["boxes"] + np.float32(0.3)} for one in right]
    parity = measure(card, tmp_path / "model.onnx", "torch 1", images, moved)
    assert parity.max_difference["boxes"] == pytest.approx(0.3, abs=0.01)
    surer = [one | {"scores": one["scores"] + np.float32(0.3)} for one in right]
    with pytest.raises(ExportError, match=r"scores by 0\.3\S* \(tolerance 0\.0001\)"):
        measure(card, tmp_path / "model.onnx", "torch 1", images, surer)


@pytest.mark.parametrize("value", [0.1, np.nan])
def test_a_graph_that_answers_otherwise_is_refused(case, value):
    card, module, model, images, reference = case
    with torch.no_grad():
        module.convolution.bias[5] += value
    with pytest.raises(ExportError, match=r"net: ONNX Runtime differs from torch 1 in .*, so nothing was published"):
        measure(card, model, "torch 1", images, answers(reference, images))


def test_a_graph_that_does_not_run_is_an_export_error(case):
    card, _, model, images, reference = case
    model.write_bytes(b"not a graph")
    with pytest.raises(ExportError, match="net: ONNX Runtime cannot run the converted graph"):
        measure(card, model, "torch 1", images, answers(reference, images))
