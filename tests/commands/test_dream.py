"""Dreams of real classifiers: the layer answers more strongly, and what cannot dream is refused."""

import re

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from tests.conftest import ROOT
from zoo.cli import main

COFFEE = ROOT / "docs/coffee.jpg"


@pytest.fixture
def dream(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, ["dream", *map(str, arguments)])


@pytest.mark.parametrize(("layer", "side"), [("", 96), ("network.features.3", 150)])
def test_the_layer_answers_more_strongly(dream, tmp_path, layer, side):
    result = dream("mobilenet_v2", COFFEE, "--layer", layer, "--side", side, "--steps", 4, "--octaves", 2)
    assert result.exit_code == 0, result.output
    name, times, changed = re.search(
        r"layer (\S+) answers ([\d.]+) times .* by ([\d.]+) of 255", result.output
    ).groups()
    assert name == (layer or name)
    assert float(times) > 1.05
    image = np.asarray(Image.open(tmp_path / "coffee.dream.png")).astype(int)
    before, after = np.split(image, 2, axis=1)
    assert before.shape[1] == side
    assert np.abs(after - before).mean() == pytest.approx(float(changed), abs=0.06)
    assert 0 < float(changed) < 20


def test_a_dream_is_the_same_again_and_no_steps_rate_changes_nothing(dream, tmp_path):
    for name, rate in (("a", 2), ("b", 2), ("c", 0)):
        dream("lenet5", COFFEE, "--side", 64, "--steps", 2, "--rate", rate, "--out", tmp_path / f"{name}.png")
    one, again, still = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in "abc")
    assert np.array_equal(one, again)
    assert np.array_equal(*np.split(still, 2, axis=1))


def test_layers_are_listed_in_their_order(dream):
    layers = dream("mobilenet_v2", COFFEE, "--layers").output.split()
    assert layers.index("network.features.3") < layers.index("network.features.10")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("yolov4_tiny", COFFEE), "yolov4_tiny has the task detect: only classifiers dream"),
        (("char_lstm", COFFEE), "char_lstm takes tensors"),
        (("mobilenet_v3", COFFEE), "there is no model 'mobilenet_v3'"),
        (("lenet5", COFFEE, "--layer", "c9"), "there is no layer 'c9'; those that it has: c1, c3, dropout, c5"),
        (("lenet5", ROOT / "README.md"), "not an image that can be read"),
    ],
)
def test_what_cannot_dream_is_refused(dream, tmp_path, arguments, message):
    result = dream(*arguments)
    assert result.exit_code == 1
    assert message in result.output
    assert list(tmp_path.iterdir()) == []
