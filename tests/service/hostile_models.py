"""Folders of models that mean harm, each with a card that is true: graphs that never end, or that read other files."""

import hashlib
import io
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from zoo.card import Licence, is_name
from zoo.served_card import GoldenTensors, Parity, Provenance, ServedTensors, Tensor, write_served_card

SIDE = 4


def write_folder(store: Path, name: str, graph: bytes, version: str = "1", golden: bytes = b"") -> Path:
    """Write a folder for a graph `x` float32 [N, 4] -> `y` [N, 4], with a card that names its hashes."""
    folder = store / name / version
    (folder / "golden").mkdir(parents=True)
    golden = golden or golden_rows()
    (folder / "golden" / "tensors.npz").write_bytes(golden)
    (folder / "model.onnx").write_bytes(graph)
    card = ServedTensors(
        name=name if is_name(name) else "net",
        version=version,
        task="tensors",
        family="onnx",
        title=name,
        homepage="",
        licence=Licence("MIT", "MIT"),
        precision="fp32",
        opset=17,
        sha256=hashlib.sha256(graph).hexdigest(),
        size=len(graph),
        provenance=Provenance({}, {}, "2026-11-28T00:00:00Z", {}),
        parity=Parity("itself", 1e-4, (1,), {"y": 0.0}),
        inputs=(Tensor("x", "float32", (None, SIDE)),),
        outputs=(Tensor("y", "float32", (None, SIDE)),),
        golden=GoldenTensors("tensors.npz", hashlib.sha256(golden).hexdigest(), sample=False),
    )
    write_served_card(card, folder / "card.json")
    return folder


def golden_rows() -> bytes:
    """Golden tensors of a graph that answers what it is given."""
    rows, file = np.ones((2, SIDE), np.float32), io.BytesIO()
    np.savez(file, **{"in/x": rows, "out/y": rows})
    return file.getvalue()


def identity() -> bytes:
    """A graph that answers as its card says."""
    return _model([helper.make_node("Identity", ["x"], ["y"])])


def unknown_operator(name: str) -> bytes:
    """A graph that does not load; ONNX Runtime's message names its operator."""
    return _model([helper.make_node(name, ["x"], ["y"])])


def endless_run() -> bytes:
    """A graph whose every run loops 2**62 times."""
    return _endless(helper.make_node("ReduceMax", ["x"], ["start"], keepdims=0))


def endless_constant() -> bytes:
    """The same over constants alone."""
    return _endless(helper.make_node("Identity", ["zero"], ["start"]))


def slow_folding(products: int = 400, side: int = 2000) -> bytes:
    """A graph of a few kilobytes whose constants take hours to compute while the session is made."""
    shape = numpy_helper.from_array(np.int64([side, side]), "shape")
    value = numpy_helper.from_array(np.float32([1 / side]))
    nodes = [helper.make_node("ConstantOfShape", ["shape"], ["m0"], value=value)]
    nodes += [helper.make_node("MatMul", [f"m{i}", f"m{i}"], [f"m{i + 1}"]) for i in range(products)]
    nodes += [helper.make_node("ReduceMax", [f"m{products}"], ["most"], keepdims=0)]
    return _model([*nodes, helper.make_node("Add", ["x", "most"], ["y"])], [shape])


KINDS_OF_REFERENCE = ("initializer", "constant", "subgraph", "sparse", "attribute", "function")


def with_external_data(kind: str, location: str) -> bytes:
    """A graph whose weights, a vector of 4, are in another file: where in the graph that is said is its kind."""
    weights = _external(np.ones(SIDE, np.float32), "w", location)
    multiply = helper.make_node("Mul", ["x", "w"], ["y"])
    match kind:
        case "initializer":
            return _model([multiply], [weights])
        case "constant":
            return _model([helper.make_node("Constant", [], ["w"], value=weights), multiply])
        case "subgraph":
            out = helper.make_tensor_value_info("o", TensorProto.FLOAT, None)
            inner = helper.make_graph([helper.make_node("Mul", ["x", "w"], ["o"])], "then", [], [out], [weights])
            other = helper.make_graph([helper.make_node("Identity", ["x"], ["o"])], "else", [], [out])
            choose = helper.make_node("If", ["yes"], ["y"], then_branch=inner, else_branch=other)
            return _model([choose], [numpy_helper.from_array(np.array(True), "yes")])
        case "sparse":
            places = numpy_helper.from_array(np.arange(SIDE, dtype=np.int64), "places")
            sparse = helper.make_sparse_tensor(weights, places, [SIDE])
            return _model([multiply], sparse=[sparse])
        case "attribute":
            value = _external(np.ones(1, np.float32), "value", location)
            nodes = [
                helper.make_node("Shape", ["x"], ["s"]),
                helper.make_node("ConstantOfShape", ["s"], ["w"], value=value),
            ]
            return _model([*nodes, multiply])
        case "function":
            body = [helper.make_node("Constant", [], ["w"], value=weights), helper.make_node("Mul", ["a", "w"], ["b"])]
            function = helper.make_function("own", "F", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
            return _model([helper.make_node("F", ["x"], ["y"], domain="own")], functions=[function])
    raise ValueError(kind)


def _external(values: np.ndarray, name: str, location: str) -> TensorProto:
    tensor = numpy_helper.from_array(values, name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(values.nbytes))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def _endless(start: onnx.NodeProto) -> bytes:
    scalar = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Add", ["a", "one"], ["b"])],
        "body",
        [scalar("i", TensorProto.INT64, []), scalar("go", TensorProto.BOOL, []), scalar("a", TensorProto.FLOAT, [])],
        [scalar("go_on", TensorProto.BOOL, []), scalar("b", TensorProto.FLOAT, [])],
        [numpy_helper.from_array(np.float32(1), "one")],
    )
    constants = {"trips": np.int64(2**62), "yes": np.array(True), "zero": np.float32(0)}
    nodes = [start, helper.make_node("Loop", ["trips", "yes", "start"], ["end"], body=body)]
    nodes.append(helper.make_node("Add", ["x", "end"], ["y"]))
    return _model(nodes, [numpy_helper.from_array(value, name) for name, value in constants.items()])


def _model(nodes, initializers=(), sparse=(), functions=()) -> bytes:
    rows = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", SIDE]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", rows[:1], rows[1:], list(initializers), sparse_initializer=list(sparse))
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(f.domain, 1) for f in functions)]
    model = helper.make_model(graph, opset_imports=opsets, functions=list(functions))
    model.ir_version = 9
    return model.SerializeToString()
