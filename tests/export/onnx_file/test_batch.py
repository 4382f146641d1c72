"""A graph within a `Scan` answers each image of a batch as it answers that image alone."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.onnx_file.batch import BatchError, free_batch, suppresses
from export.onnx_file.reading import open_session


@pytest.fixture
def mixing():
    """[1, 3, 8, 8] -> `y` [1, 8], that mixes the images of a batch; `x` and `y` are names within it, too."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0, 1, 2], keepdims=0),
        helper.make_node("Reshape", ["mean", "shape"], ["row"]),
        helper.make_node("Mul", ["row", "scale"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(*value) for value in (("x", 1, [1, 3, 8, 8]), ("y", 1, [1, 8]))]
    tensors = [numpy_helper.from_array(np.array([1, 8]), "shape")]
    tensors.append(numpy_helper.from_array(np.arange(8, dtype=np.float32), "scale"))
    graph = helper.make_graph(nodes, "net", values[:1], values[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_images_run_one_by_one(mixing):
    with pytest.raises(BatchError, match=r"net\.onnx: the graph has its batch size built in.*`one_by_one = true`"):
        free_batch(mixing, (8, 8), Path("net.onnx"))
    freed = free_batch(mixing, (8, 8), Path("net.onnx"), one_by_one=True)
    onnx.checker.check_model(freed, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(freed, strict_mode=True)
    assert [side.dim_param or side.dim_value for side in inferred.graph.output[0].type.tensor_type.shape.dim] == [
        "batch",
        8,
    ]
    session = open_session(freed.SerializeToString())
    x = np.random.default_rng(0).normal(size=(7, 3, 8, 8)).astype(np.float32)
    for count in range(1, 8):
        answer = session.run(["y"], {"x": x[:count]})[0]
        np.testing.assert_allclose(answer, x[:count].mean((1, 2)) * np.arange(8), rtol=1e-5, atol=1e-6)


def test_suppression_is_found_within_other_graphs():
    node = helper.make_node("NonMaxSuppression", ["boxes", "scores"], ["kept"])
    branch = helper.make_graph([node], "branch", [], [helper.make_tensor_value_info("kept", TensorProto.INT64, None)])
    nodes = [node, helper.make_node("If", ["condition"], ["y"], then_branch=branch, else_branch=branch)]
    assert suppresses(helper.make_model(helper.make_graph(nodes, "net", [], []))) == 3
