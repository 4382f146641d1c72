"""float16 and float64 at a graph's ends, as `half=True` writes them: casts go around it, and the answers are right."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnxruntime.transformers import float16
from PIL import Image

from export.families.onnx import build
from export.importer.draft import draft_onnx
from export.onnx_file.reading import read
from export.reference import Reference
from zoo.errors import ExportError
from zoo.labels import read_labels

COLOURS = np.array([[4, 0, 0], [0, 4, 0], [0, 0, 4], [2, 2, 0], [-4, -4, -4]], np.float32)
LABELS = ["red", "green", "blue", "yellow", "black"]


@pytest.fixture
def colours(tmp_path, make_model):
    """Write a classifier of the mean colour: logits = COLOURS x (red, green, blue in 0..1); and its labels."""

    def make(kind, numbers, *, unsorted=False):
        nodes = [
            helper.make_node("ReduceMean", ["x"], ["mean"], axes=[2, 3], keepdims=0),
            helper.make_node("MatMul", ["mean", "colours"], ["y"]),
        ]
        model = make_model(
            nodes,
            [("x", kind, ["N", 3, 64, 64])],
            [("y", kind, ["N", 5])],
            {"colours": COLOURS.T.astype(numbers)},
        )
        if unsorted:
            model.graph.node.insert(0, model.graph.node.pop())
        onnx.save_model(model, tmp_path / "net.onnx")
        (tmp_path / "colours.txt").write_text("\n".join(LABELS))
        return tmp_path / "net.onnx"

    return make


def test_what_does_not_run_on_float64_is_told_so(tmp_path, make_model):
    nodes, sides = [helper.make_node("Conv", ["x", "w"], ["y"])], ["N", 3, 8, 8]
    shape = TensorProto.DOUBLE, sides
    model = make_model(nodes, [("x", *shape)], [("y", *shape)], {"w": np.ones((3, 3, 1, 1))})
    onnx.save_model(model, tmp_path / "a.onnx")
    with pytest.raises(ExportError, match=r"weights are float64, .*: call `\.float\(\)` on the network, and export"):
        read(tmp_path / "a.onnx")


@pytest.mark.parametrize(
    ("kind", "numbers", "unsorted"),
    [
        (TensorProto.FLOAT, np.float32, False),
        (TensorProto.FLOAT, np.float32, True),
        (TensorProto.FLOAT16, np.float16, False),
        (TensorProto.FLOAT16, np.float16, True),
        (TensorProto.DOUBLE, np.float64, False),
    ],
)
def test_every_float_answers_alike(colours, import_options, tmp_path, kind, numbers, unsorted):
    stated = import_options(labels=str(tmp_path / "colours.txt"), mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0))
    path = colours(kind, numbers, unsorted=unsorted)
    card = draft_onnx(path, stated, tmp_path).card
    network = build(card, {"weights": path})
    x = np.full((2, 3, 64, 64), np.array([230, 120, 20], np.float32).reshape(3, 1, 1) / 255)
    x[1] = 0.25
    session = onnxruntime.InferenceSession(network.module.SerializeToString())
    logits = session.run(["logits"], {session.get_inputs()[0].name: x})[0]
    np.testing.assert_allclose(logits, x.mean((2, 3)) @ COLOURS.T, atol=0.005)
    np.testing.assert_allclose(network.reference(x)["logits"], logits, atol=0.005)


def test_it_is_added(run, colours, tmp_path):
    Image.new("RGB", (80, 80), (230, 120, 20)).save(tmp_path / "orange.png")
    given = ["--labels", "colours.txt", "--mean", 0, "--std", 255, "--photo", "orange.png", "--license", "MIT"]
    result = run(colours(TensorProto.FLOAT16, np.float16), *given, "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)["answer"]["predictions"]
    assert [one["label"] for one in answer] == ["red", "yellow", "green", "blue", "black"]
    assert [one["score"] for one in answer[:2]] == pytest.approx([0.611, 0.258], abs=0.001)


def test_a_name_within_a_graph_in_a_node_is_changed_too(tmp_path, make_model):
    """An `If` reads the input from outside of its branches."""
    out = [helper.make_tensor_value_info("b", TensorProto.FLOAT16, None)]
    branch = helper.make_graph([helper.make_node("Relu", ["x"], ["b"])], "branch", [], out)
    model = make_model(
        [helper.make_node("If", ["always"], ["y"], then_branch=branch, else_branch=branch)],
        [("x", TensorProto.FLOAT16, ["N", 3, 8, 8])],
        [("y", TensorProto.FLOAT16, ["N", 3, 8, 8])],
        {"always": np.array(True)},
    )
    onnx.save_model(model, tmp_path / "net.onnx")
    read_model, session = read(tmp_path / "net.onnx")
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(session.run(None, {"x": x})[0], np.maximum(x, 0), rtol=1e-3)
    assert read_model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT


def test_a_real_network_in_float16(my_onnx, make_images, import_options, tmp_path):
    """The converter leaves nodes unsorted, and float32 inside."""
    onnx.save_model(float16.convert_float_to_float16(onnx.load(my_onnx)), tmp_path / "half.onnx")
    stated = import_options(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
    card = draft_onnx(tmp_path / "half.onnx", stated, tmp_path).card
    half, full = (
        Reference(card, build(card, {"weights": path}), 1000)(make_images(card.recipe, "coffee"))["probabilities"]
        for path in (tmp_path / "half.onnx", my_onnx)
    )
    assert half.argmax() == full.argmax() == read_labels("imagenet1k").index("espresso")
    assert half.max() == pytest.approx(full.max(), abs=0.01)
