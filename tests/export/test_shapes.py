"""Arithmetic on shapes: what becomes a constant, what stays, and that the answers are the same."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.batch import name_batch
from export.shapes import settle

CONSTANTS = {
    "zero": 0,
    "one": 1,
    "first": [0],
    "flat": [-1],
    "last": [1, 2, 3],
    "two": 2,
    "rest": [-1],
    "twice": [10, 14],
    "row": [[[[1.0]]]],
    "pixels": 105,
    "sides": [5, 7, 3],
}
SHAPE = [("Shape", "images", "all", {})]
COUNT = [("Shape", "images", "count", {"start": 0, "end": 1})]
CHANNELS_FIRST = [("Transpose", "floats", "x", {"perm": [0, 3, 1, 2]})]

# Nodes (operator, inputs, output, attributes) from `floats` [N, 5, 7, 3] to `y`; what is left of them.
CASES = {
    "a flatten by Shape, Gather and Concat": (
        [
            *SHAPE,
            ("Gather", "all first", "n", {}),
            ("Concat", "n rest", "to", {"axis": 0}),
            ("Reshape", "floats to", "y", {}),
        ],
        ["Reshape"],
    ),
    "a flatten by a Gather over a Range": (  # as torch writes it where channels are last in memory
        [
            *COUNT,
            ("Squeeze", "count", "n", {}),
            ("Range", "zero n one", "rows", {}),
            ("Mul", "rows pixels", "starts", {}),
            ("Unsqueeze", "starts last1", "column", {}),
            ("Range", "zero pixels one", "offsets", {}),
            ("Add", "column offsets", "indices", {}),
            ("Reshape", "floats flat", "line", {}),
            ("Gather", "line indices", "y", {}),
        ],
        ["Reshape"],
    ),
    "a Gather of other elements stays": (
        [
            *COUNT,
            ("Sub", "count first", "n", {}),
            ("Squeeze", "n", "m", {}),
            ("Range", "zero m one", "rows", {}),
            ("Sub", "m one", "top", {}),
            ("Sub", "top rows", "back", {}),
            ("Gather", "floats back", "y", {}),
        ],
        ["Shape", "Sub", "Squeeze", "Range", "Sub", "Sub", "Gather"],
    ),
    "an Expand along other axes": (
        [*COUNT, ("Concat", "count sides", "to", {"axis": 0}), ("Expand", "floats to", "y", {})],
        ["Expand"],
    ),
    "a token for each image stays": (
        [*COUNT, ("Concat", "count sides", "to", {"axis": 0}), ("Expand", "row to", "y", {})],
        ["Shape", "Concat", "Expand"],
    ),
    "a Resize to the size of something": (
        [
            *CHANNELS_FIRST,
            ("Shape", "x", "before", {"start": 0, "end": 2}),
            ("Concat", "before twice", "to", {"axis": 0}),
            ("Resize", "x   to", "y", {"mode": "linear"}),
        ],
        ["Transpose", "Resize"],
    ),
    "a size that is the same for every batch": (
        [
            *SHAPE,
            ("Gather", "all one", "height", {}),
            ("Cast", "height", "h", {"to": TensorProto.FLOAT}),
            ("Mul", "floats h", "y", {}),
        ],
        ["Mul"],
    ),
    "a shape that depends on the image stays": (
        [
            ("ReduceMean", "floats", "mean", {"keepdims": 0}),
            ("Greater", "floats mean", "bright", {}),
            ("NonZero", "bright", "places", {}),
            ("Shape", "places", "number", {}),
            ("Cast", "number", "numbers", {"to": TensorProto.FLOAT}),
            ("ReduceSum", "numbers", "sum", {"keepdims": 0}),
            ("Mul", "floats sum", "y", {}),
        ],
        ["ReduceMean", "Greater", "NonZero", "Shape", "Cast", "ReduceSum", "Mul"],
    ),
}


def graph_of(nodes) -> onnx.ModelProto:
    made = [helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT)]
    made += [helper.make_node(kind, given.split(" "), [output], **more) for kind, given, output, more in nodes]
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in CONSTANTS.items() if k != "row"]
    tensors.append(numpy_helper.from_array(np.array(CONSTANTS["row"], np.float32), "row"))
    tensors.append(numpy_helper.from_array(np.array([1]), "last1"))
    values = [
        helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 5, 7, 3]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
    ]
    graph = helper.make_graph(made, "net", values[:1], values[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def answers(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0]


@pytest.mark.parametrize(("nodes", "left"), CASES.values(), ids=CASES)
def test_what_is_left_answers_the_same(nodes, left):
    model = graph_of(nodes)
    settled = graph_of(nodes)
    settle(settled)
    assert [node.op_type for node in settled.graph.node if node.output[0] != "floats"] == left
    names = {name for node in settled.graph.node for name in node.input}
    assert {tensor.name for tensor in settled.graph.initializer} <= names
    for size in (1, 2, 4, 7):
        images = np.random.default_rng(size).integers(0, 256, (size, 5, 7, 3), np.uint8)
        np.testing.assert_array_equal(answers(settled, images), answers(model, images))


def test_constants_that_are_stored_small_stay_so():
    nodes = [("DequantizeLinear", "small scale", "weights", {}), ("Mul", "floats weights", "y", {})]
    model = graph_of(nodes)
    model.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.int8), "small"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.5, np.float32), "scale"))
    settle(model)
    assert [node.op_type for node in model.graph.node] == ["Cast", "DequantizeLinear", "Mul"]


@pytest.mark.parametrize(
    ("dims", "inner", "changed"),
    [(["batch", 4], None, False), (["N", 4], None, True), (["batch", 4], [1, 4], True), ([1, 4], None, False)],
)
def test_a_free_batch_has_one_name(dims, inner, changed):
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name in ("x", "y")]
    model = helper.make_model(helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "net", values[:1], values[1:]))
    if inner:
        model.graph.value_info.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, inner))
    assert name_batch(model) is changed
    want = 1 if dims[0] == 1 else "batch"
    for value in (*model.graph.input, *model.graph.output):
        side = value.type.tensor_type.shape.dim[0]
        assert (side.dim_param or side.dim_value) == want
    assert not model.graph.value_info
