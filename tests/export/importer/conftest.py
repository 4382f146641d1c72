"""ONNX files of a few operators, for what a file can say about itself."""

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from export.importer.options import ImportOptions
from zoo.cli import main

FLOAT = TensorProto.FLOAT


@pytest.fixture
def make_onnx(tmp_path):
    """Write a file: constant nodes, then a pooling that ends in `classes` numbers per image, by default [N, 4]."""

    def make(shape=("N", 3, 32, 32), nodes=(), constants=None, *, kind=FLOAT, outputs=("y",), notes=None, opset=20):
        last = nodes[-1].output[0] if nodes else "x"
        pooled = len(shape) == 4 and kind == FLOAT
        axes, channels = ([1, 2], 3) if pooled and shape[3] == 3 != shape[1] else ([2, 3], shape[1])
        initializers = dict(constants or {})
        tail = [helper.make_node("Identity", [last], ["y"])]
        if pooled:
            initializers |= {"axes": np.array(axes), "weight": np.ones((channels, 4), np.float32)}
            tail = [helper.make_node("ReduceMean", [last, "axes"], ["pooled"], keepdims=0)]
            tail += [helper.make_node("MatMul", ["pooled", "weight"], [name]) for name in outputs]
        graph = helper.make_graph(
            [*nodes, *tail],
            "net",
            [helper.make_tensor_value_info("x", kind, shape)],
            [helper.make_tensor_value_info(name, kind, ["M", 4] if pooled else shape) for name in outputs],
            [numpy_helper.from_array(value, name) for name, value in initializers.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
        helper.set_model_props(model, notes or {})
        path = tmp_path / "net.onnx"
        onnx.save_model(model, path)
        return path

    return make


NOTED = {"stride": "32", "task": "detect", "license": "AGPL-3.0", "names": "{0: 'cup', 1: 'plate'}"}


@pytest.fixture
def make_table(tmp_path):
    """Write a network [1, 3, 64, 96] that answers the same rows to every image, as exporters of YOLO note it."""

    def make(rows, *, name="net.onnx", notes=None, **noted):
        model = make_model(
            [
                helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2, 3], keepdims=1),
                helper.make_node("Squeeze", ["mean", "last"], ["one"]),
                helper.make_node("Mul", ["one", "nought"], ["zero"]),
                helper.make_node("Add", ["zero", "rows"], ["y"]),
            ],
            [("x", FLOAT, [1, 3, 64, 96])],
            [("y", FLOAT, [1, *rows.shape])],
            {"rows": rows[None], "nought": np.array(0, np.float32), "last": np.array([3])},
            NOTED | noted if notes is None else notes,
        )
        onnx.save_model(model, tmp_path / name)
        return tmp_path / name

    return make


@pytest.fixture(name="make_model")
def make_model_fixture():
    return make_model


def make_model(nodes, inputs, outputs, constants, notes=None):
    """A graph of opset 17; inputs and outputs are names, types and shapes."""
    values = [[helper.make_tensor_value_info(*value) for value in side] for side in (inputs, outputs)]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "net", *values, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, notes or {})
    return model


@pytest.fixture
def run(tmp_path, monkeypatch):
    """`zooserve add` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ZOOSERVE_CARDS", raising=False)
    monkeypatch.setenv("ZOOSERVE_MODELS", str(tmp_path / "models"))
    return lambda *arguments: CliRunner().invoke(main, ["add", *map(str, arguments)])


@pytest.fixture
def import_options():
    return lambda **stated: ImportOptions(**({"name": "net", "licence": "MIT"} | stated))


@pytest.fixture
def names(tmp_path):
    """Write a label file of so many lines."""

    def make(count: int) -> str:
        path = tmp_path / "names.txt"
        path.write_text("".join(f"class {number}\n" for number in range(count)))
        return str(path)

    return make
