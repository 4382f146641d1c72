"""TFLite graphs in torch: DeepLabv3 answers as TensorFlow Lite's own interpreter does."""

import importlib.util

import msgspec
import numpy as np
import pytest
import torch

from export.families import tflite
from export.families.tflite import build
from export.heads import Pixels
from zoo import catalog
from zoo.card import Recipe
from zoo.errors import ExportError
from zoo.labels import read_labels
from zoo.sources import fetch_all


@pytest.fixture(scope="module")
def deeplab():
    card = catalog.find("deeplabv3_mobilenet_v2")
    return card, fetch_all(card.sources)


def logits(network, x: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return network.module(x)["logits"].numpy()


@pytest.mark.skipif(importlib.util.find_spec("ai_edge_litert") is None, reason="LiteRT has no wheel here")
def test_torch_answers_as_the_interpreter_does(deeplab, make_images):
    card, files = deeplab
    network = build(card, files)
    assert network.reference_name.startswith("LiteRT ")
    x = Pixels(card.normalise)(torch.from_numpy(make_images(card.recipe, "chelsea", "astronaut")))
    expected, got = network.reference(x.numpy())["logits"], logits(network, x)
    assert got.shape == (2, 21, 257, 257)
    assert np.abs(expected).max() > 20
    np.testing.assert_allclose(got, expected, atol=1e-3)


def test_without_the_interpreter_torch_is_the_reference(deeplab, make_images, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ai_edge_litert.interpreter", None)
    card, files = deeplab
    network = build(card, files)
    assert network.reference is None
    assert network.reference_name == f"torch {torch.__version__}"
    mask = logits(network, Pixels(card.normalise)(torch.from_numpy(make_images(card.recipe, "chelsea"))))[0].argmax(0)
    assert np.mean(mask == read_labels(card.labels).index("cat")) == pytest.approx(0.77, abs=0.01)


@pytest.mark.parametrize(("index", "name"), [(9, "ADD"), (61, "AVERAGE_POOL_2D"), (63, "RESIZE_BILINEAR")])
def test_an_unknown_op_is_named(deeplab, monkeypatch, index, name):
    monkeypatch.delitem(tflite._OPS, name)
    with pytest.raises(ExportError, match=rf"deeplabv3\.tflite: operator {index}, {name} is not known\. Known are"):
        build(*deeplab)


def test_an_unknown_activation_is_named(deeplab, monkeypatch):
    monkeypatch.delitem(tflite._ACTIVATIONS, 3)
    with pytest.raises(ExportError, match="operator 0, CONV_2D: the fused activation number 3 is not known"):
        build(*deeplab)


def test_another_input_size_is_refused(deeplab):
    card, files = deeplab
    card = msgspec.structs.replace(card, recipe=Recipe(256, 257, "stretch"))
    with pytest.raises(ExportError, match=r"takes \(1, 257, 257, 3\), but the card's recipe makes \(1, 256, 257, 3\)"):
        build(card, files)


def test_another_file_is_refused(deeplab, tmp_path):
    (tmp_path / "net.tflite").write_bytes(b"PK\x03\x04 an archive")
    with pytest.raises(ExportError, match=r"net\.tflite: not a TensorFlow Lite file"):
        build(deeplab[0], {"weights": tmp_path / "net.tflite"})


@pytest.mark.parametrize("share", [1e-5, 1e-3, 0.5, 0.999])
def test_a_file_that_is_cut_off_is_refused(deeplab, tmp_path, share):
    card, files = deeplab
    content = files["weights"].read_bytes()
    (tmp_path / "cut.tflite").write_bytes(content[: int(share * len(content))])
    with pytest.raises(ExportError, match=r"cut\.tflite: not a TensorFlow Lite file that can be read, it is damaged"):
        build(card, {"weights": tmp_path / "cut.tflite"})
