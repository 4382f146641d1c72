"""The training script on a few of the real images. The committed checkpoint is tested with its family."""

import json

import pytest
import torch
from click.testing import CliRunner

from export.families.lenet import LeNet5
from export.training import lenet5
from export.training.lenet5 import accuracy, augment, main, read_mnist


@pytest.fixture
def few_images(monkeypatch):
    few = {part: tuple(tensor[:1000] for tensor in read_mnist(part)) for part in ("train", "test")}
    monkeypatch.setattr(lenet5, "read_mnist", few.__getitem__)
    return few


def test_seeds_decide_and_the_report_is_true(few_images, tmp_path):
    checkpoints = []
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        path = tmp_path / "new" / f"{name}.pt"
        result = CliRunner().invoke(main, ["--out", str(path), "--epochs", "1", "--seed", str(seed)])
        assert result.exit_code == 0, result.output
        assert "epoch 1/1: loss" in result.output
        checkpoints.append(path)
    states = [torch.load(path, weights_only=True) for path in checkpoints]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["c1.weight"], states[2]["c1.weight"])

    network = LeNet5()
    network.load_state_dict(states[0])
    report = json.loads(checkpoints[0].with_suffix(".json").read_text())
    assert report["test_accuracy"] == accuracy(network, *few_images["test"])


def test_it_learns(few_images, tmp_path):
    path = tmp_path / "lenet5.pt"
    main.callback(path, epochs=10, batch_size=40, learning_rate=0.05, seed=0)
    assert json.loads(path.with_suffix(".json").read_text())["test_accuracy"] > 0.5  # by chance: 0.1


def test_augmentation_moves_digits_but_keeps_them(few_images):
    images, _ = few_images["train"]
    moved = augment(images, torch.Generator().manual_seed(0))
    assert moved.shape == images.shape
    assert moved.min() >= 0
    assert moved.max() <= 1.0001
    assert (moved - images).abs().mean() > 0.05
    assert moved.mean().item() == pytest.approx(images.mean().item(), rel=0.1)
