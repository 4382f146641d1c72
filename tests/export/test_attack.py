"""FGSM and PGD: how far they go, to the byte, and what they do to the served graph's answers."""

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

from export.attack import Fgsm, Pgd, Target, fast_gradient_sign, projected_gradient_descent, target_of
from export.heads import Pixels
from zoo import catalog
from zoo.errors import ExportError
from zoo.model_card import Normalise
from zoo.store import Store

ATTACKS = {"fgsm": Fgsm, "pgd": Pgd}


@pytest.fixture(scope="module")
def lenet(models):
    return Store(models).latest("lenet5")


@pytest.fixture(scope="module")
def digits():
    """200 of MNIST's test images, uint8 [200, 28, 28, 3], and their class ids."""
    files = catalog.dataset("mnist")
    pixels = np.fromfile(files["test_images"], np.uint8, offset=16).reshape(-1, 28, 28, 1)[::50]
    return pixels.repeat(3, axis=3), np.fromfile(files["test_labels"], np.uint8, offset=8)[::50].astype(np.int64)


@pytest.fixture(scope="module")
def accuracy(lenet, digits):
    session = ort.InferenceSession(lenet.path / "model.onnx")
    return lambda images: (session.run(["probabilities"], {"images": images})[0].argmax(1) == digits[1]).mean()


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("epsilon", [0, 1, 30, 255])
def test_no_byte_goes_further_than_epsilon(lenet, digits, name, epsilon):
    images, labels = digits[0][:40], digits[1][:40]
    attacked = ATTACKS[name](lenet.card)(images, labels, epsilon=epsilon, steps=4)
    assert attacked.dtype == np.uint8
    moved = np.abs(attacked.astype(int) - images)
    assert moved.max() == epsilon if epsilon < 255 else moved.max() <= 255
    if epsilon == 0:
        assert np.array_equal(attacked, images)
    again = ATTACKS[name](lenet.card)(images, labels, epsilon=epsilon, steps=4)
    assert np.array_equal(attacked, again)


def test_the_served_graph_is_misled_the_more_the_further(lenet, digits, accuracy):
    images, labels = digits
    clean = accuracy(images)
    assert clean >= 0.98
    fgsm = {epsilon: accuracy(Fgsm(lenet.card)(images, labels, epsilon=epsilon)) for epsilon in (0, 16, 40)}
    assert fgsm[0] == clean
    assert clean > fgsm[16] > fgsm[40]
    assert fgsm[40] < 0.6
    assert accuracy(Pgd(lenet.card)(images, labels, epsilon=40, steps=10)) < fgsm[40]
    noise = np.random.default_rng(0).choice([-40, 40], images.shape)  # it is the direction, not the distance
    assert accuracy(np.clip(images + noise, 0, 255).astype(np.uint8)) > 0.9


class _Line(nn.Module):
    """Logits w * brightness and 0: the gradient's sign is known."""

    def __init__(self, w: float) -> None:
        super().__init__()
        self.w = w

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        bright = self.w * x.mean((1, 2, 3))
        return {"logits": torch.stack([bright, torch.zeros_like(bright)], 1)}


@pytest.mark.parametrize(("w", "label", "direction"), [(1, 0, -1), (1, 1, 1), (-1, 0, 1), (-1, 1, -1)])
def test_the_direction_by_hand(w, label, direction):
    target = Target(_Line(w), Pixels(Normalise()))
    images = torch.full((1, 2, 2, 3), 100.0, device=target.device)
    labels = torch.tensor([label], device=target.device)
    assert torch.equal(fast_gradient_sign(target, images, labels, 7), images + 7 * direction)
    assert torch.equal(projected_gradient_descent(target, images, labels, 7, 5), images + 7 * direction)


def test_only_classifiers_with_a_network_in_torch(models, lenet):
    with pytest.raises(ExportError, match="yolov4_tiny has the task detect: only classifiers are attacked"):
        target_of(Store(models).latest("yolov4_tiny").card)
    with pytest.raises(ExportError, match="expected at least 0 grey levels and 1 step"):
        Fgsm(lenet.card)(np.zeros((1, 28, 28, 3), np.uint8), np.array([1]), epsilon=-1)
