"""The committed LeNet-5 on all of MNIST's test images, and on what users post: digits of any size."""

import json

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from PIL import Image

from export.families.lenet import build
from export.training.lenet5 import accuracy, read_mnist
from zoo import catalog
from zoo.card import Recipe
from zoo.errors import ExportError
from zoo.files import sha256_of
from zoo.model_card import Normalise
from zoo.recipe import apply_exact
from zoo.sources import fetch_all


@pytest.fixture(scope="module")
def card():
    return catalog.find("lenet5")


@pytest.fixture(scope="module")
def checkpoint(card):
    return fetch_all(card.sources)["weights"]


@pytest.fixture(scope="module")
def network(card, checkpoint):
    return build(card, {"weights": checkpoint}).module


@pytest.fixture(scope="module")
def mnist_test():
    return read_mnist("test")


def test_names_993_of_1000_test_digits_as_its_report_says(network, checkpoint, mnist_test):
    images, digits = mnist_test
    assert images.shape == (10_000, 1, 28, 28)
    share = accuracy(network, images, digits)
    assert share >= 0.993
    report = json.loads(checkpoint.with_suffix(".json").read_text())
    assert report["test_accuracy"] == pytest.approx(share, abs=2e-4)  # machines round differently
    assert report["sha256"] == sha256_of(checkpoint)
    assert checkpoint.stat().st_size < 1_000_000


@pytest.mark.parametrize("size", [(280, 280), (64, 100), (333, 97)])
def test_images_of_any_size(card, network, mnist_test, size):
    images, digits = (part[:1000] for part in mnist_test)
    posted = [Image.fromarray(np.uint8(255 * image[0])).resize(size).convert("RGB") for image in images]
    served = torch.from_numpy(np.stack([apply_exact(card.recipe, image)[None, :, :, 0] for image in posted])) / 255
    assert accuracy(network, served, digits) >= 0.99


@pytest.mark.parametrize("margin", [0, 8])
def test_digits_that_fill_their_image_more_or_less(card, network, mnist_test, margin):
    """MNIST's digits have a margin of four pixels; a drawn one may have none, or twice as much."""
    images, digits = (part[:1000] for part in mnist_test)
    posted = [Image.fromarray(np.uint8(255 * np.pad(image[0, 4:-4, 4:-4], margin))) for image in images]
    served = np.stack([apply_exact(card.recipe, image.convert("RGB"))[None, :, :, 0] for image in posted])
    assert accuracy(network, torch.from_numpy(served) / 255, digits) >= 0.97


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": Recipe(32, 32, "stretch")}, "takes 28 x 28 grey pixels in 0..1 and no options, but .* 32 x 32"),
        ({"normalise": Normalise()}, "`normalise` Normalise.*channels='rgb'"),
        ({"normalise": Normalise((33.3,) * 3, (78.6,) * 3, "grey")}, "`normalise` Normalise.*33.3"),
        ({"options": {"width": 2}}, "`options` {'width': 2}"),
    ],
)
def test_cards_that_do_not_fit_are_refused(card, checkpoint, changes, message):
    with pytest.raises(ExportError, match=message):
        build(replace(card, **changes), {"weights": checkpoint})


def test_other_checkpoints_are_refused(card, tmp_path):
    path = tmp_path / "other.pt"
    torch.save({"c1.weight": torch.zeros(6, 1, 5, 5)}, path)
    with pytest.raises(ExportError, match=r"other\.pt is no checkpoint of LeNet-5"):
        build(card, {"weights": path})
