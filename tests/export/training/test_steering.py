"""Rendered roads, the script on a few of them, and what was committed, on roads that it was not trained on."""

import json
import math

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from export.build import build_tensors
from export.training import steering
from export.training.roads import HEIGHT, LOOKAHEAD, WIDTH, Road, render, roads
from export.training.steering import UNSEEN, baselines, errors, main
from zoo import catalog
from zoo.files import sha256_of
from zoo.sources import fetch_all


@pytest.fixture(scope="module")
def checkpoint():
    return fetch_all(catalog.find("steering").sources)["weights"]


def test_it_is_nearer_than_a_linear_regression_as_its_report_says(checkpoint):
    network = build_tensors(catalog.find("steering"), {"weights": checkpoint}).module
    report = json.loads(checkpoint.with_suffix(".json").read_text())
    unseen = roads(1000, UNSEEN)
    found = errors(network, *unseen)
    assert found == pytest.approx(report["mean_absolute_error"], abs=0.01)  # machines round differently
    assert found < 0.2 < report["linear"] < report["constant"]
    assert report["sha256"] == sha256_of(checkpoint)
    assert checkpoint.stat().st_size < 1_000_000


@pytest.mark.parametrize(
    ("road", "angle"),
    [
        (Road(0, 0, 0), 0),
        (Road(1, 0, 0), math.degrees(math.atan(2 * 2.7 / (LOOKAHEAD**2 + 1)))),  # pure pursuit by hand
        (Road(-1, 0, 0), -math.degrees(math.atan(2 * 2.7 / (LOOKAHEAD**2 + 1)))),
    ],
)
def test_the_angle_is_that_of_pure_pursuit(road, angle):
    assert road.angle == pytest.approx(angle)


def test_a_road_lies_where_it_is_said_to():
    """The paint of the edge lines is the brightest of the lowest row; its middle is the road's centre."""
    for offset in (-1.0, 0.0, 1.0):
        image = render(Road(offset, 0, 0), np.random.default_rng(5)).astype(int)
        assert image.shape == (HEIGHT, WIDTH, 3)
        row = np.abs(np.diff(image[40:60].sum(axis=(0, 2))))
        middle = np.average(np.arange(len(row)), weights=row**2)
        if offset:
            assert (middle > WIDTH / 2) == (offset > 0)


def test_roads_are_the_same_again():
    assert np.array_equal(roads(3, 7)[0], roads(3, 7)[0])
    assert not np.array_equal(roads(3, 7)[0], roads(3, 8)[0])


def test_the_baselines_are_what_they_are_called():
    images = np.zeros((4, HEIGHT, WIDTH, 3), np.uint8)
    angles = np.array([1, 1, 1, 5], np.float32)
    found = baselines((images, angles), (images, np.array([1, 1, 1, 1], np.float32)))
    assert found["constant"] == 0
    assert found["linear"] == pytest.approx(1, abs=0.1)  # black images say nothing: their mean angle is 2


def test_the_script_runs_and_seeds_decide(tmp_path, monkeypatch):
    monkeypatch.setattr(steering, "_UNSEEN", 50)
    states = []
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        path = tmp_path / f"{name}.pt"
        result = CliRunner().invoke(main, ["--out", str(path), "--count", "60", "--epochs", "2", "--seed", str(seed)])
        assert result.exit_code == 0, result.output
        assert "epoch 2/2" in result.output
        states.append(torch.load(path, weights_only=True))
        assert json.loads(path.with_suffix(".json").read_text())["constant"] > 0
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["output.weight"], states[2]["output.weight"])
