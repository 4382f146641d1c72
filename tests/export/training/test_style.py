"""The script for a few steps; and what was committed, on the photo that it was not trained on."""

import json

import pytest
import torch
from click.testing import CliRunner

from export.build import build_tensors
from export.training.perceptual import Perception
from export.training.style import PATTERNS, crops, main, measure, read_images, read_pattern
from zoo import catalog
from zoo.files import sha256_of
from zoo.sources import fetch_all


@pytest.fixture(scope="module")
def perception():
    return Perception()


@pytest.mark.parametrize("pattern", [name for name in PATTERNS if f"style_{name}" in catalog.names()])
def test_it_paints_in_the_style_what_the_photo_shows_as_its_report_says(perception, pattern):
    card = catalog.find(f"style_{pattern}")
    checkpoint = fetch_all(card.sources)["weights"]
    report = json.loads(checkpoint.with_suffix(".json").read_text())
    with torch.no_grad():
        style = perception.grams(perception.features(read_pattern(pattern)))
    found = measure(build_tensors(card, {"weights": checkpoint}).module, perception, style)
    assert found == pytest.approx({name: report[name] for name in found}, abs=0.01)  # machines round differently
    assert found["style"] < found["style_of_photo"] / 2
    assert found["content"] < found["content_of_another"] / 2
    assert report["sha256"] == sha256_of(checkpoint)
    assert checkpoint.stat().st_size < 1_000_000


def test_losses_are_shares(perception):
    pattern = perception.features(read_pattern("brick"))
    grams = perception.grams(pattern)
    assert perception.style_loss(grams, grams).item() == 0
    assert perception.content_loss(pattern, pattern).item() == 0
    nothing = tuple(torch.zeros_like(one) for one in pattern)
    assert perception.style_loss(perception.grams(nothing), grams).item() == pytest.approx(1)
    assert perception.content_loss(nothing, pattern).item() == pytest.approx(1)


def test_crops_are_squares_of_the_photos():
    images = read_images(("rocket",))
    cut = crops(images, 3, torch.Generator().manual_seed(0))
    assert cut.shape == (3, 3, 128, 128)
    assert cut.max() > 100


def test_the_script_runs_and_seeds_decide(tmp_path):
    states = []
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        path = tmp_path / f"{name}.pt"
        result = CliRunner().invoke(main, ["brick", "--out", str(path), "--steps", "3", "--seed", str(seed)])
        assert result.exit_code == 0, result.output
        assert "step 3/3" in result.output
        states.append(torch.load(path, weights_only=True))
        assert json.loads(path.with_suffix(".json").read_text())["style_of_photo"] > 0
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["output.1.weight"], states[2]["output.1.weight"])
