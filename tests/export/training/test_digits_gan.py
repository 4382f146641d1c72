"""The script on a few digits; and what was committed, judged by LeNet-5."""

import json

import pytest
import torch
from click.testing import CliRunner

from export.build import build_tensors
from export.families.digits_gan import LATENT
from export.training import digits_gan
from export.training.digits_gan import distance, judged, main
from export.training.lenet5 import read_mnist
from zoo import catalog
from zoo.files import sha256_of
from zoo.sources import fetch_all


@pytest.fixture(scope="module")
def checkpoint():
    return fetch_all(catalog.find("digits_gan").sources)["weights"]


@pytest.fixture(scope="module")
def samples(checkpoint):
    network = build_tensors(catalog.find("digits_gan"), {"weights": checkpoint}).module
    with torch.no_grad():
        return network.pixels(torch.randn(3000, LATENT, generator=torch.Generator().manual_seed(5)))


def test_lenet_is_sure_of_its_digits_and_all_ten_occur_as_its_report_says(samples, checkpoint):
    report, found = json.loads(checkpoint.with_suffix(".json").read_text()), judged(samples)
    assert found == pytest.approx({name: report[name] for name in found}, abs=0.04)  # of other latent vectors
    assert found["sure"] > 0.55
    assert found["rarest"] > 0.03
    assert found["entropy_bits"] > 3.1
    assert report["sha256"] == sha256_of(checkpoint)
    assert checkpoint.stat().st_size < 1_000_000


def test_its_digits_are_not_the_training_images(samples, checkpoint):
    train, _ = read_mnist("train")
    assert distance(samples[:100], train) > 3  # a copy has 0
    assert distance(train[:5], train) < 0.1


def test_the_judge_is_sure_of_real_digits():
    found = judged(read_mnist("test")[0])
    assert found["sure"] > 0.97
    assert found["entropy_bits"] == pytest.approx(3.32, abs=0.01)


@pytest.fixture
def few_digits(monkeypatch):
    few = {part: tuple(tensor[:640] for tensor in read_mnist(part)) for part in ("train", "test")}
    monkeypatch.setattr(digits_gan, "read_mnist", few.__getitem__)
    monkeypatch.setattr(digits_gan, "_JUDGED", 200)
    monkeypatch.setattr(digits_gan, "_COMPARED", 20)


def test_seeds_decide_and_the_report_is_written(few_digits, tmp_path):
    states = []
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        path = tmp_path / f"{name}.pt"
        result = CliRunner().invoke(main, ["--out", str(path), "--epochs", "1", "--seed", str(seed)])
        assert result.exit_code == 0, result.output
        assert "epoch 1/1" in result.output
        states.append(torch.load(path, weights_only=True))
        report = json.loads(path.with_suffix(".json").read_text())
        assert report["distance_of_test_images"] > 0
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["entry.0.weight"], states[2]["entry.0.weight"])


def test_a_batch_of_more_images_than_there_are_is_refused(few_digits, tmp_path):
    result = CliRunner().invoke(main, ["--out", str(tmp_path / "a.pt"), "--batch-size", "641"])
    assert result.exit_code == 2
    assert "--batch-size is 641, but there are 640 images" in result.output
    assert list(tmp_path.iterdir()) == []
