"""Cards and small networks for the tests of the converter."""

import msgspec
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import nn

from export import pipeline
from tests.export import any_batch
from zoo import catalog
from zoo.card import Licence, Recipe
from zoo.model_card import ModelCard
from zoo.recipe import apply_exact


@pytest.fixture(scope="session", autouse=True)
def _graphs_take_any_batch(conversions):
    """Each graph that a test exports is checked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "convert", any_batch.convert)
        yield


_LABELS = {"classify": "digits", "detect": "coco80", "segment": "voc21", "pose": "person", "obb": "dota15"}


@pytest.fixture
def make_card():
    """A card of a task with its usual labels and a 64 x 96 letterbox, with any field changed."""

    def make(task: str = "classify", **changes) -> ModelCard:
        card = ModelCard(
            name="net",
            version="1",
            task=task,
            family="torchvision",
            title="Net",
            labels=_LABELS[task],
            licence=Licence("MIT", "MIT"),
            recipe=Recipe(64, 96, "letterbox"),
            sources={},
            keypoints="coco17" if task == "pose" else None,
        )
        return msgspec.structs.replace(card, **changes)

    return make


class Net(nn.Module):
    """One convolution of stride 8, with the raw answers of a task."""

    def __init__(self, task: str, classes: int) -> None:
        super().__init__()
        self.task = task
        self.convolution = nn.Conv2d(3, classes + 4, 8, stride=8)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.convolution(x)
        if self.task == "classify":
            return {"logits": y[:, 4:].mean((2, 3)) * 10}
        if self.task == "segment":
            return {"logits": y[:, 4:]}
        y = y.flatten(2).transpose(1, 2)
        return {"boxes": y[..., :4] * 50, "scores": y[..., 4:].sigmoid()}


@pytest.fixture
def make_net():
    def make(task: str, classes: int) -> Net:
        torch.manual_seed(0)
        return Net(task, classes).eval()

    return make


@pytest.fixture
def make_images():
    """Real photos after a recipe, uint8 [N, H, W, 3]."""

    def make(recipe: Recipe, *names: str) -> np.ndarray:
        photos = (Image.open(catalog.sample(name)).convert("RGB") for name in names or ("chelsea", "coffee"))
        return np.stack([apply_exact(recipe, photo) for photo in photos])

    return make


@pytest.fixture
def cli():
    """Run a command and return its result."""
    return lambda command, *arguments: CliRunner().invoke(command, [str(argument) for argument in arguments])
