"""`zooserve add --task image`: a network that answers an image with an image."""

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from export.families.image_to_image import build_tensors
from zoo import catalog
from zoo.cli import main
from zoo.model_card import read_model_card
from zoo.recipe import apply_exact
from zoo.served_card import ServedTensors
from zoo.store import Store

SIDE = 32


def network(path, *, values="0..1", layout="nchw", channels=3, times=2, batch="N"):
    """Enlarges an image twofold, in one of the ranges; with one channel, the mean of the three."""
    inner = ["C", "H", "W"] if layout == "nchw" else ["H", "W", "C"]
    sides = {"H": SIDE, "W": SIDE, "C": 3}
    nodes, made = [], "x"
    if channels == 1:
        axes = numpy_helper.from_array(np.array([inner.index("C") + 1]), "axes")
        nodes.append(helper.make_node("ReduceMean", [made, "axes"], ["mean"], keepdims=1))
        made = "mean"
    scales = np.array([1, *(1 if side == "C" else times for side in inner)], np.float32)
    nodes.append(helper.make_node("Resize", [made, "", "scales"], ["larger"], mode="nearest"))
    scale, shift = {"0..1": (1, 0), "-1..1": (2, -1), "0..255": (255, 0)}[values]
    nodes += [helper.make_node("Mul", ["larger", "scale"], ["m"]), helper.make_node("Add", ["m", "shift"], ["y"])]
    constants = [numpy_helper.from_array(scales, "scales")]
    constants += [numpy_helper.from_array(np.array(v, np.float32), n) for n, v in (("scale", scale), ("shift", shift))]
    constants += [axes] if channels == 1 else []
    out = [batch, *({"C": channels}.get(side, times * SIDE) for side in inner)]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *(sides[side] for side in inner)])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)


@pytest.fixture
def add(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    always = ("--out", "cards", "--models", "models", "--json")
    return lambda *arguments: CliRunner().invoke(main, ["add", *arguments, *always])


@pytest.fixture
def added(add, tmp_path):
    """Add `net.onnx` as an image network; returns its served card, and what it answers to a photo."""

    def run(*more):
        result = add("net.onnx", "--task", "image", "--license", "MIT", *more)
        assert result.exit_code == 0, result.output
        (entry,) = Store(tmp_path / "models").entries()
        assert isinstance(entry.card, ServedTensors)
        photo = Image.open(catalog.sample("coffee")).convert("RGB")
        images = apply_exact(entry.card.recipe, photo)[None]
        session = onnxruntime.InferenceSession(entry.path / "model.onnx")
        return entry.card, images[0], session.run(["image"], {"images": images})[0][0]

    return run


@pytest.mark.parametrize("values", ["0..1", "-1..1", "0..255"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_the_range_and_the_layout_are_found(added, tmp_path, values, layout):
    network(tmp_path / "net.onnx", values=values, layout=layout)
    card, before, after = added()
    assert card.answers_image
    assert card.outputs[0].shape == (None, 2 * SIDE, 2 * SIDE, 3)
    assert np.abs(after[::2, ::2].astype(int) - before).max() <= 1
    written = read_model_card(tmp_path / "cards/net.toml")
    assert (written.family, written.recipe.resize) == ("image_to_image", "letterbox")


def test_a_grey_image_is_one_too(added, tmp_path):
    network(tmp_path / "net.onnx", channels=1, times=1)
    _, before, after = added("--resize", "stretch")
    assert after.shape == (SIDE, SIDE, 1)
    assert np.abs(after[..., 0] - before.mean(axis=2)).max() <= 1


def test_a_fixed_batch_is_freed(added, tmp_path):
    network(tmp_path / "net.onnx", batch=1)
    card, _, _ = added()
    assert card.inputs[0].shape[0] is None


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({}, ("--output", "z"), "--output is 'z', but an image has 1, 3 or 4 channels; its outputs are 'y'"),
        ({}, ("--size", "64"), "its input is 32 x 32 pixels, so --size cannot be 64x64"),
        ({"channels": 1, "times": 1}, ("--output", "mean"), "--output is 'mean'"),
    ],
)
def test_what_is_no_image_is_refused(add, tmp_path, changes, arguments, message):
    network(tmp_path / "net.onnx", **changes)
    result = add("net.onnx", "--task", "image", "--license", "MIT", *arguments)
    assert result.exit_code != 0
    assert message in " ".join(result.output.split())
    assert Store(tmp_path / "models").entries() == []


def test_a_card_without_a_recipe_is_refused():
    from msgspec.structs import replace

    from zoo.errors import ExportError

    card = replace(catalog.find("style_tissue"), family="image_to_image", recipe=None)
    with pytest.raises(ExportError, match="has a `recipe`"):
        build_tensors(card, {"weights": "net.onnx"})
