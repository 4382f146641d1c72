"""A served graph in lower precision: fp16 for GPUs, int8 for CPUs. `export.variant` compares and publishes it.

Only the network is converted: what is between the first and the last convolution or matrix product that has trained
weights. The pixels before it are exact bytes, and what follows it (softmax, boxes in pixels, scores, their best class)
is small, and coarse numbers would show there: above 512, float16 has half pixels only.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from export.shapes import drop_unread
from zoo.errors import ExportError

_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_CHOICES = frozenset({"ArgMax", "TopK"})
_FEW = 16
"""So many numbers are no trained weights: they make a box's sides of distributions, or its corners of its centre."""


def to_fp16(path: Path) -> ModelProto:
    """Convert a served graph's network to float16; the graph's inputs and outputs stay as they are.

    Raises:
        ExportError: the network has no convolution or matrix product.
    """
    model = onnx.load(path)
    _leave_out_empty_scales(model.graph)
    half: ModelProto = convert_float_to_float16(model, keep_io_types=True, node_block_list=_outside(model.graph))
    # The converter puts one cast per reader of a value, all of one name, at the end of the graph.
    once = {node.output[0]: node for node in half.graph.node}
    del half.graph.node[:]
    half.graph.node.extend(once.values())
    OnnxModel(half).topological_sort()
    del half.graph.value_info[:]  # types from before
    _join_casts(half)
    return half


def _join_casts(model: ModelProto) -> None:
    """Let what reads a float32 value that was cast to float16 and back read the value itself.

    The converter puts such casts behind every operator that stays float32, so they all would be as coarse as float16.
    """
    graph = model.graph
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {x.name: x.type.tensor_type.elem_type for x in (*inferred.value_info, *inferred.input)}
    halved = {node.output[0]: node.input[0] for node in graph.node if _casts(node, TensorProto.FLOAT16)}
    exact = {
        node.output[0]: halved[node.input[0]]
        for node in graph.node
        if _casts(node, TensorProto.FLOAT) and types.get(halved.get(node.input[0], "")) == TensorProto.FLOAT
    }
    outputs = {exact[x.name]: x.name for x in graph.output if x.name in exact}  # they keep their names
    kept = [node for node in graph.node if node.output[0] not in exact]
    for node in kept:
        for names in (node.input, node.output):
            names[:] = [outputs.get(exact.get(name, name), exact.get(name, name)) for name in names]
    del graph.node[:]
    graph.node.extend(kept)
    drop_unread(graph)


def _casts(node: NodeProto, kind: int) -> bool:
    return node.op_type == "Cast" and node.attribute[0].i == kind


def to_int8(path: Path, images: npt.NDArray[np.uint8]) -> ModelProto:
    """Quantise a served graph's network to int8 by ONNX Runtime's static quantisation (quantise and dequantise nodes).

    Weights are int8 per output channel, of 7 bits: processors without VNNI add two products in 16 bits, which 8 would
    overflow. Activations are uint8, with the ranges that they had on the `images`.

    Args:
        path: of the fp32 `model.onnx`.
        images: uint8 [M, H, W, 3], photos after the card's recipe.

    Raises:
        ExportError: the network has no convolution or matrix product.
    """
    with TemporaryDirectory(prefix="zooserve-") as folder:
        folded, quantised = Path(folder) / "folded.onnx", Path(folder) / "int8.onnx"
        quant_pre_process(str(path), str(folded), skip_symbolic_shape=True)
        quantize_static(
            str(folded),
            str(quantised),
            _Photos(images),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_exclude=_outside(onnx.load(folded).graph),
        )
        return onnx.load(quantised)


class _Photos(CalibrationDataReader):  # type: ignore[misc] # ONNX Runtime has no types
    def __init__(self, images: npt.NDArray[np.uint8]) -> None:
        self._images: Iterator[npt.NDArray[np.uint8]] = iter(images)

    def get_next(self) -> dict[str, Any] | None:
        image = next(self._images, None)
        return None if image is None else {"images": image[None]}


def _outside(graph: GraphProto) -> list[str]:
    """Names of the nodes before the first or after the last product: no product precedes them, or none follows.

    What is computed once an answer was chosen (the activation map of the best class) is after the last product, too.
    """
    for number, node in enumerate(graph.node):
        node.name = node.name or f"node_{number}"
    chosen = _after(graph, lambda node: node.op_type in _CHOICES)
    products = {node.name for node in graph.node if node.op_type in _PRODUCTS and not _is_small(graph, node)} - chosen
    after = _after(graph, lambda node: node.name in products) - chosen
    followed: set[str] = set()  # values that a product depends on
    inside: set[str] = set()
    for node in reversed(graph.node):
        if node.name in products or followed.intersection(node.output):
            followed.update(node.input)
            inside.add(node.name)
    inside &= after
    if not inside:
        raise ExportError("the graph has no convolution or matrix product, so there is nothing to convert")
    return [node.name for node in graph.node if node.name not in inside]


def _is_small(graph: GraphProto, node: NodeProto) -> bool:
    """Whether one of a product's factors is a constant of few numbers."""
    few = {tensor.name for tensor in graph.initializer if math.prod(tensor.dims) <= _FEW}
    few |= {
        each.output[0]
        for each in graph.node
        if each.op_type == "Constant" and math.prod(each.attribute[0].t.dims) <= _FEW
    }
    return not few.isdisjoint(node.input[:2])


def _after(graph: GraphProto, begins: Callable[[NodeProto], bool]) -> set[str]:
    """Names of some nodes, and of all that depend on them. The graph is in topological order."""
    values: set[str] = set()
    names: set[str] = set()
    for node in graph.node:
        if begins(node) or values.intersection(node.input):
            values.update(node.output)
            names.add(node.name)
    return names


def _leave_out_empty_scales(graph: GraphProto) -> None:
    """Of a Resize with `sizes`, leave out `scales` that are there but empty: the converter puts a Cast before them.

    They are no constant then, and ONNX Runtime refuses a Resize that may have both.
    """
    empty = {tensor.name for tensor in graph.initializer if 0 in tensor.dims}
    for node in graph.node:
        if node.op_type == "Constant" and any(0 in attribute.t.dims for attribute in node.attribute):
            empty.update(node.output)
        elif node.op_type == "Resize" and len(node.input) > 2 and node.input[2] in empty:
            node.input[2] = ""
