"""An ONNX file as a model of our opset with float32 ends, and as a session of what was published."""

import contextlib
import graphlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import ModelProto, TensorProto, compose, helper, inliner, version_converter
from onnxruntime import InferenceSession

from export.batch import declare_free
from export.convert import OPSET
from export.onnx_file.external import join, load
from zoo.errors import ExportError

_FLOATS = {TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}  # that become float32 at the graph's ends
_OLDEST_OPSET = 7  # older files have other broadcasting and batch normalisation, which cannot be converted


def reference_name(path: Path) -> str:
    """Name a published file as the reference, for card.json."""
    return f"onnxruntime {onnxruntime.__version__}, {path.name} as published"


def open_session(model: Path | bytes) -> InferenceSession:
    """Open an ONNX file, or one in memory, on the CPU. ONNX Runtime prints nothing: what it refuses is raised."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return InferenceSession(model, options, providers=["CPUExecutionProvider"])


def one_by_one(
    session: InferenceSession, outputs: list[str], x: npt.NDArray[np.float32]
) -> list[npt.NDArray[np.float32]]:
    """Return the outputs for a batch [N, ...], computed one image at a time: a graph may have no other batch size."""
    image = session.get_inputs()[0].name
    answers = [session.run(outputs, {image: x[i : i + 1]}) for i in range(len(x))]
    return [np.concatenate([np.atleast_1d(part) for part in parts]) for parts in zip(*answers, strict=True)]


def read(path: Path, data: Iterable[Path] = ()) -> tuple[ModelProto, InferenceSession]:
    """Read an ONNX file: its model, brought to our opset, and the session of the file as it is.

    Weights that it keeps in the files `data` are put into it. Both take and answer float32 where the file has float16
    (`half=True`) or float64: casts go around it. A fixed batch of several images is declared free: where it is built
    into the graph, too, the session does not run on one image.

    Raises:
        ExportError: not an ONNX file, one whose weights are in a file that is not named or is incomplete, one that
            ONNX Runtime cannot run, or one whose opset is too old or too new.
    """
    model = load(path)
    joined = join(model, path, data)
    opset = next((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), 0)
    again = f"export it again with opset_version={OPSET}"
    if 0 < opset < _OLDEST_OPSET:
        raise ExportError(
            f"{path}: opset {opset} is too old, it must be at least {_OLDEST_OPSET}, and onnx converts no older file "
            f"that normalises batches; {again}"
        )
    try:
        _sort(model.graph)
        onnx.checker.check_model(model)
        cast = _with_float32_ends(model)
        freed = _fixed_batch(model) > 1 and declare_free(model) > 0
        session = open_session(model.SerializeToString() if cast or joined or freed else path)
    except Exception as error:  # the checker and ONNX Runtime raise errors of many kinds
        if opset > OPSET:
            raise ExportError(f"{path}: opset {opset} is too new to be run here, {again}") from error
        if "NOT_IMPLEMENTED" in str(error) and _is_double(model):
            raise ExportError(
                f"{path}: its weights are float64, with which ONNX Runtime does not run all operators: call `.float()` "
                f"on the network, and export it again ({error})"
            ) from error
        raise ExportError(f"{path}: not an ONNX file that can be run: {error}") from error
    try:
        if model.functions:  # of the file itself, as torch.onnx.export wrote them: a converter knows no others
            model = inliner.inline_local_functions(model)
        return version_converter.convert_version(model, OPSET), session
    except Exception as error:  # the same
        raise ExportError(f"{path}: opset {opset} cannot be brought to opset {OPSET}, {again}: {error}") from error


def _is_double(model: ModelProto) -> bool:
    return any(tensor.data_type == TensorProto.DOUBLE for tensor in model.graph.initializer if len(tensor.dims) > 1)


def _fixed_batch(model: ModelProto) -> int:
    """Return the number of images that a graph with one input is declared to take; 0 where it is free."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1 or len(inputs[0].type.tensor_type.shape.dim) != 4:
        return 0
    return int(inputs[0].type.tensor_type.shape.dim[0].dim_value)


def _sort(graph: onnx.GraphProto) -> None:
    """Put nodes behind those that they read from: the converter to float16 leaves them unsorted, and only ONNX minds.

    A graph that needs no sorting, or cannot be sorted, is left as it is.
    """
    makers = {name: index for index, node in enumerate(graph.node) for name in node.output}
    needs = [{makers[name] for name in _read(node) if name in makers} for node in graph.node]
    if all(max(needed, default=-1) < index for index, needed in enumerate(needs)):
        return
    with contextlib.suppress(graphlib.CycleError):
        order = list(graphlib.TopologicalSorter(dict(enumerate(needs))).static_order())
        nodes = [graph.node[index] for index in order]
        del graph.node[:]
        graph.node.extend(nodes)


def _read(node: onnx.NodeProto) -> Iterator[str]:
    """The tensors that a node reads, those of the graphs within it included."""
    yield from node.input
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            for each in inner.node:
                yield from _read(each)


def _with_float32_ends(model: ModelProto) -> bool:
    """Put casts from and to float32 around a graph, in place. Return whether it has ends of another float type."""
    graph = model.graph
    constants = {x.name for x in graph.initializer}
    inputs = [x for x in graph.input if x.name not in constants and x.type.tensor_type.elem_type in _FLOATS]
    outputs = [x for x in graph.output if x.type.tensor_type.elem_type in _FLOATS]
    for end in inputs:
        inner = f"{end.name}/as_published"
        _rename(graph, end.name, inner)
        cast = helper.make_node("Cast", [end.name], [inner], to=end.type.tensor_type.elem_type)
        graph.node.insert(0, cast)
    for end in outputs:
        inner = f"{end.name}/as_published"
        _rename(graph, end.name, inner)
        graph.node.append(helper.make_node("Cast", [inner], [end.name], to=TensorProto.FLOAT))
    for end in (*inputs, *outputs):
        end.type.tensor_type.elem_type = TensorProto.FLOAT
    return bool(inputs or outputs)


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Give a tensor another name wherever nodes read or write it, in the graphs within nodes too."""
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _rename(inner, old, new)
    for value in graph.value_info:
        if value.name == old:
            value.name = new


def keep(model: ModelProto, image: str, outputs: Mapping[str, str]) -> ModelProto:
    """Keep what leads from the input `image` to the tensors that `outputs` names, by the names that they shall have.

    Any tensor of the graph can be one. Inner names get a prefix, so that they cannot be taken for the new ones.
    """
    kept = compose.add_prefix(_leading_to(model, image, list(outputs.values())), "published/")
    _forget_shapes(kept.graph)
    for value, (name, tensor) in zip(kept.graph.output, outputs.items(), strict=True):
        half = value.type.tensor_type.elem_type in _FLOATS  # within a graph whose ends are float32
        node = helper.make_node("Identity", [f"published/{tensor}"], [name])
        if half:
            node = helper.make_node("Cast", [f"published/{tensor}"], [name], to=TensorProto.FLOAT)
        kept.graph.node.append(node)
        value.name = name
        if half:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return kept


def _forget_shapes(graph: onnx.GraphProto) -> None:
    """Drop the shapes of inner values, those of the graphs within nodes included: they have the old batch size."""
    del graph.value_info[:]
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [attribute.g] * attribute.HasField("g") + [*attribute.graphs]:
                _forget_shapes(inner)
                for value in inner.output:
                    value.type.tensor_type.ClearField("shape")


def _leading_to(model: ModelProto, image: str, outputs: list[str]) -> ModelProto:
    """Return the part of a sorted graph that computes `outputs` from `image`; onnx's own misses what `If` reads.

    Weights that graphs within nodes read become nodes: onnx's `add_prefix` does not rename them there.
    """
    graph = model.graph
    values = {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}
    needed, within, nodes = set(outputs), set[str](), []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(_read(node))
            within.update(set(_read(node)).difference(node.input))
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    nodes += [helper.make_node("Constant", [], [one.name], value=one) for one in weights if one.name in within]
    kept = helper.make_graph(
        nodes[::-1],
        graph.name,
        [values[image]],
        [values[name] for name in outputs],
        [tensor for tensor in weights if tensor.name not in within],
        sparse_initializer=[tensor for tensor in graph.sparse_initializer if tensor.values.name in needed],
    )
    # Before version 4, weights had to be inputs, too.
    return helper.make_model(kept, ir_version=max(model.ir_version, 4), opset_imports=model.opset_import)
