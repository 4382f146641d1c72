"""Graphs that the attacks need."""

import numpy as np
import pytest
from click.testing import CliRunner

from zoo.cli import main


@pytest.fixture(scope="session")
def rows_store(mixed_store, tmp_path_factory):
    """The mixed store, and in it `rows`: float32 [N, M] -> float32 [N, 1000], the mean of a row over and over."""
    import onnx
    from onnx import TensorProto, helper

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "m"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1000])
    ones = helper.make_tensor("ones", TensorProto.FLOAT, [1, 1000], np.ones(1000, np.float32))
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Mul", ["mean", "ones"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "rows", [x], [y], [ones])
    store = tmp_path_factory.mktemp("rows")
    for model in ("gru", "mobilenet_v2"):
        (store / model).symlink_to(mixed_store / model)
    path = store / "rows.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    arguments = ["add", str(path), "--task", "tensors", "--license", "LicenseRef-own", "--json"]
    arguments += ["--out", str(store / "cards"), "--models", str(store)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return store
