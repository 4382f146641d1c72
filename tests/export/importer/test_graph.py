"""What an ONNX file says about itself, and the files that are refused."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from export.importer.graph import inspect
from zoo.errors import ExportError


def constant(*values: float) -> np.ndarray:
    return np.array(values, np.float32).reshape(1, -1, 1, 1)


def chain(*operators: str) -> list:
    names = ["x", *(f"x{number}" for number in range(1, len(operators) + 1))]
    return [
        helper.make_node(operator, [before, f"c{number}"], [after])
        for number, (operator, before, after) in enumerate(zip(operators, names[:-1], names[1:], strict=True))
    ]


@pytest.mark.parametrize(
    ("shape", "layout", "size"),
    [
        (("N", 3, 32, 48), "nchw", (32, 48)),
        ((1, 32, 48, 3), "nhwc", (32, 48)),
        (("N", 3, "H", "W"), "nchw", (None, None)),
        (("N", 3, 3, 3), "nchw", (3, 3)),
    ],
)
def test_the_layout_is_read_from_the_shape(make_onnx, shape, layout, size):
    graph = inspect(make_onnx(shape))
    assert (graph.layout, graph.channels, (graph.height, graph.width)) == (layout, 3, size)
    answers = graph.answers(*(side or 16 for side in size))
    assert {name: answer.shape for name, answer in answers.items()} == {"y": (1, 4)}


@pytest.mark.parametrize(
    ("operators", "constants", "normalises", "full_scale"),
    [
        ((), (), "", 1.0),
        (("Div",), (255.0,), "Div", 255.0),
        (("Mul", "Sub"), (1 / 127.5, 1.0), "Mul, Sub", 255.0),
        (("Sub",), (116.0,), "Sub", 255.0),
        (("Sub", "Div"), (116.0, 57.0), "Sub, Div", 255.0),
        (("Sub", "Div"), (0.45, 0.225), "Sub, Div", 1.0),
        (("Mul", "Sub"), (2.0, 1.0), "Mul, Sub", 1.0),
    ],
)
def test_a_normalisation_inside_is_recognised(make_onnx, operators, constants, normalises, full_scale):
    values = {f"c{number}": constant(value, value, value) for number, value in enumerate(constants)}
    graph = inspect(make_onnx(nodes=chain(*operators), constants=values))
    assert graph.normalises == normalises
    if normalises:
        assert graph.full_scale == full_scale


def node(operator: str, reads: str, writes: str):
    return helper.make_node(operator, reads.split(), [writes])


EXPONENT = [node("Neg", "x", "n"), node("Exp", "n", "e"), node("Add", "e one", "d")]


@pytest.mark.parametrize(
    ("nodes", "recognised"),
    [
        ([*EXPONENT, node("Reciprocal", "d", "z")], True),
        ([*EXPONENT, node("Reciprocal", "d", "r"), node("Mul", "r one", "z")], True),  # as torch writes 1 / x
        ([*EXPONENT[:2], node("Add", "one e", "d"), node("Div", "one d", "z")], True),
        ([node("Exp", "x", "e"), node("Add", "e one", "d"), node("Div", "e d", "z")], True),
        ([*EXPONENT[:2], node("Add", "e two", "d"), node("Reciprocal", "d", "z")], False),
        ([*EXPONENT, node("Div", "two d", "z")], False),
        ([*EXPONENT, node("Div", "x d", "z")], False),  # SiLU
        ([node("Exp", "x", "e"), node("Reciprocal", "e", "z")], False),
    ],
)
def test_a_sigmoid_that_is_spelled_out_is_recognised(make_onnx, nodes, recognised):
    path = make_onnx(nodes=nodes, constants={"one": constant(1), "two": constant(2)})
    model = onnx.load(path)
    del model.graph.node[-2:], model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 3, 32, 32]))
    onnx.save_model(model, path)
    assert inspect(path).sigmoids == (frozenset({"z"}) if recognised else frozenset())


def test_a_batch_normalisation_in_front_is_one(make_onnx):
    node = helper.make_node("BatchNormalization", ["x", "gamma", "beta", "mean", "variance"], ["x1"])
    values = {"gamma": 1.0, "beta": 0.0, "mean": 110.0, "variance": 3000.0}
    graph = inspect(make_onnx(nodes=[node], constants={k: np.full(3, v, np.float32) for k, v in values.items()}))
    assert (graph.normalises, graph.full_scale) == ("BatchNormalization", 255.0)


def test_the_notes_of_an_exporter_are_read(make_onnx):
    notes = {"names": "{0: 'cat', 1: 'dog'}", "stride": "32", "imgsz": "[640, 384]", "task": "detect"}
    graph = inspect(make_onnx(notes=notes))
    assert graph.notes.of_ultralytics
    assert graph.notes.names == ("cat", "dog")
    assert graph.notes.size == (640, 384)
    assert not inspect(make_onnx(notes={"names": "[]"})).notes.of_ultralytics


@pytest.mark.parametrize(
    ("noted", "names"),
    [
        ("{1: 'dog', 0: 'cat'}", ("cat", "dog")),  # the ids count, not the order in which they were written
        ("['cat', 'dog']", ("cat", "dog")),
        ("{0: 'cat', 2: 'dog'}", ()),
        ("'cat'", ()),
        ("7", ()),
        ("{[]: 1}", ()),
        ("__import__('os')", ()),
        ("(" * 10_000, ()),
    ],
)
def test_noted_names(make_onnx, noted, names):
    assert inspect(make_onnx(notes={"names": noted})).notes.names == names


@pytest.mark.parametrize("noted", ["640", "('a', 'b')", "[0, 640]", "[640, 1000000]", "[1, 2, 3]", "["])
def test_a_noted_size_that_is_none(make_onnx, noted):
    assert inspect(make_onnx(notes={"imgsz": noted})).notes.size is None


def test_a_division_by_zero_is_no_normalisation(make_onnx):
    graph = inspect(make_onnx(nodes=chain("Sub", "Div"), constants={"c0": constant(0.5), "c1": constant(0.0)}))
    assert graph.normalises == "Sub"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (3, 32, 32)}, r"takes float \[3, 32, 32\], without a batch dimension: export it with one"),
        ({"shape": (4, 3, 32, 32)}, "in batches of exactly 4: export it with a free batch size"),
        ({"shape": ("N", 3, 32, 32), "kind": TensorProto.UINT8}, "takes uint8 .* expected float"),
        ({"shape": ("N", 5, 32, 32)}, "NCHW with 5 channels, expected 3"),
        ({"shape": ("N", 32)}, "expected a batch of images"),
        ({"opset": 99}, "opset 99 is too new"),
    ],
)
def test_what_cannot_be_served_is_refused(make_onnx, options, message):
    with pytest.raises(ExportError, match=message):
        inspect(make_onnx(**options))


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(b"PK\x03\x04 not a graph")
    with pytest.raises(ExportError, match="not an ONNX file"):
        inspect(path)
