"""ONNX files of a few operators, for what a file can say about itself."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.own.draft import Wishes

FLOAT = TensorProto.FLOAT


@pytest.fixture
def make_onnx(tmp_path):
    """Write a file: constant nodes, then a pooling that ends in `classes` numbers per picture, by default [N, 4]."""

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


@pytest.fixture
def wish():
    return lambda **wishes: Wishes(**({"name": "net", "licence": "MIT"} | wishes))


@pytest.fixture
def names(tmp_path):
    """Write a label file of so many lines."""

    def make(count: int) -> str:
        path = tmp_path / "names.txt"
        path.write_text("".join(f"class {number}\n" for number in range(count)))
        return str(path)

    return make
