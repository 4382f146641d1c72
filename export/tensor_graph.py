"""An ONNX graph with tensors in and out, as a file has it. Called by `export.tensors` and `export.importer.tensors`."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from onnx import ModelProto, TensorProto

from export.batch import check_batch, declare_free, name_batch
from export.onnx_file.batch import suppresses
from export.onnx_file.external import join, load
from export.onnx_file.reading import open_session
from zoo.card import DType
from zoo.errors import ExportError
from zoo.served_card import Precision, Tensor

_DTYPES: Mapping[str, DType] = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(string)": "string",
} | {
    f"tensor({name})": name
    for name in ("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")
}  # type: ignore[assignment]  # each of them is a DType


class Graph(NamedTuple):
    """An ONNX file with a batch dimension.

    Attributes:
        joined: the file with the weights that it keeps in others, and with its batch called `batch`; empty where the
            file itself is so already.
        free: names of the free dimensions besides the batch, as the file calls them, by input.
        suppresses: how many operators suppress boxes in it; exporters write one for each row that they were shown.
    """

    path: Path
    joined: bytes
    session: onnxruntime.InferenceSession
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    free: dict[str, dict[int, str]]
    opset: int
    precision: Precision
    suppresses: int


def read_graph(path: Path, data: Iterable[Path] = ()) -> Graph:
    """Read an ONNX file, with the weights that it keeps in the files `data`.

    Raises:
        ExportError: not one that runs here, weights in a file that is not named, a tensor without a batch dimension, or
            of a type that cannot be sent.
    """
    model = load(path)
    joined = b""
    fixed = declare_free(model)
    if join(model, path, data) | name_batch(model) | bool(fixed):
        joined = model.SerializeToString()
    return graph_of(model, path, joined, fixed)


def graph_of(model: ModelProto, path: Path, joined: bytes, fixed: int = 0) -> Graph:
    """Describe a model whose batch is called `batch`.

    Args:
        model: with its weights.
        path: of the file, for messages.
        joined: the model as bytes; empty: the file is it.
        fixed: the batch that the file declared, where that was a number.

    Raises:
        ExportError: as `read_graph` does.
    """
    try:
        session = open_session(joined or path)
    except Exception as error:  # protobuf and ONNX Runtime raise errors of many kinds
        raise ExportError(f"{path}: not an ONNX file that can be run: {error}") from error
    try:
        check_batch(session)
    except ExportError as error:
        built_in = f"its batch of {fixed} is built in: " if fixed else ""
        raise ExportError(f"{path}: {built_in}{error}") from error
    inputs = tuple(_described(path, x) for x in session.get_inputs())
    outputs = tuple(_described(path, x) for x in session.get_outputs())
    free = {
        x.name: {
            axis: str(side or f"{x.name}.{axis}") for axis, side in enumerate(x.shape) if not isinstance(side, int)
        }
        for x in session.get_inputs()
    }
    opset = next((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), 0)
    return Graph(path, joined, session, inputs, outputs, free, opset, _precision(model), suppresses(model))


def _described(path: Path, node: Any) -> Tensor:
    """Put an input or output of a session into the card's terms."""
    if node.type not in _DTYPES:
        known = ", ".join(_DTYPES.values())
        raise ExportError(f"{path}: {node.name!r} is a {node.type}, which cannot be sent; expected one of {known}")
    return Tensor(node.name, _DTYPES[node.type], tuple(x if isinstance(x, int) else None for x in node.shape))


def _precision(model: ModelProto) -> Precision:
    """Say in which precision most of the weights are."""
    sizes: dict[Precision, int] = {"fp32": 0, "fp16": 0, "int8": 0}
    kinds: dict[int, Precision] = {TensorProto.FLOAT16: "fp16", TensorProto.INT8: "int8", TensorProto.UINT8: "int8"}
    for weights in model.graph.initializer:
        sizes[kinds.get(weights.data_type, "fp32")] += int(np.prod(weights.dims))
    return max(sizes, key=lambda name: sizes[name])
