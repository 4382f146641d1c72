"""Networks that are published as ONNX. They keep their graph; pixels go in front of it and the head behind.

`export.families.yolo_onnx` reads, cuts and frees its files with the public functions here.
"""

import contextlib
import graphlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import ModelProto, TensorProto, compose, helper, numpy_helper, version_converter
from onnx.utils import Extractor
from onnxruntime import InferenceSession

from export.convert import OPSET
from export.network import Network, RawOutputs
from zoo.card import ModelCard
from zoo.errors import ExportError

_SMALLEST = 1e-30  # of a probability whose logarithm is taken
_FLOATS = {TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}  # that become float32 at the graph's ends
_OLDEST_OPSET = 7  # older files have other broadcasting and batch normalisation, which cannot be converted


def build(card: ModelCard, files: dict[str, Path]) -> Network:
    """Take one output of the ONNX file `weights` as the raw answer; the file itself, in ONNX Runtime, is the reference.

    Options: `output`, the name of that output, which may be left out where there is only one. A classifier's are logits
    [N, C]; a segmenter's are logits [N, C, h, w] or, with one channel, the opacity [N, 1, H, W] of a salient object.
    `probabilities = true`: a classifier's graph ends in its softmax. `channels_last = true`: it takes [N, H, W, 3].

    Raises:
        ExportError: not an ONNX file, another input than one float32 [N, 3, H, W] of the recipe's size, no such output,
            a batch size that is built into the graph, or a detector, whose boxes have no common form.
    """
    path = files["weights"]
    if card.task == "detect":
        raise ExportError(f"{card.name}: a detector needs a family that knows the form of its boxes; `onnx` does not")
    model, session = read(path)
    check_input(card, session, path)
    output = _chosen_output(card, session, path)
    picture = session.get_inputs()[0].name
    shape = one_by_one(session, [output], np.zeros((1, *_input_shape(card)), np.float32))[0].shape
    name = "alpha" if card.task == "segment" and shape[1:] == (1, card.recipe.height, card.recipe.width) else "logits"
    last, softmax = (bool(card.options.get(option)) for option in ("channels_last", "probabilities"))

    def reference(x: npt.NDArray[np.float32]) -> RawOutputs:
        answer = one_by_one(session, [output], x.transpose(0, 2, 3, 1) if last else x)[0]
        return {name: np.log(np.maximum(answer, _SMALLEST)) if softmax else answer}

    module = keep(model, picture, {name: output})
    if softmax:
        module = _logarithm(module)
    if last:
        module = _channels_first(module)
    return Network(free_batch(module, (card.recipe.height, card.recipe.width), path), reference_name(path), reference)


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
    """Return the outputs for a batch [N, ...], computed one picture at a time: a graph may have no other batch size."""
    picture = session.get_inputs()[0].name
    answers = [session.run(outputs, {picture: x[i : i + 1]}) for i in range(len(x))]
    return [np.concatenate(parts) for parts in zip(*answers, strict=True)]


def read(path: Path) -> tuple[ModelProto, InferenceSession]:
    """Read an ONNX file: its model, brought to our opset, and the session of the file as it is.

    Both take and answer float32 where the file has float16 (`half=True`) or float64: casts go around it.

    Raises:
        ExportError: not an ONNX file, one whose weights lie in another, one that ONNX Runtime cannot run, or one whose
            opset is too old or too new.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf raises errors of many kinds
        raise ExportError(f"{path}: not an ONNX file that can be run: {error}") from error
    check_whole(model, path)
    opset = next((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), 0)
    if 0 < opset < _OLDEST_OPSET:
        raise ExportError(
            f"{path}: opset {opset} is too old, it must be at least {_OLDEST_OPSET}; convert the file first"
        )
    again = f"export it again with opset_version={OPSET}"
    try:
        _sort(model.graph)
        onnx.checker.check_model(model)
        cast = _with_float32_ends(model)
        session = open_session(model.SerializeToString() if cast else path)
    except Exception as error:  # the checker and ONNX Runtime raise errors of many kinds
        if opset > OPSET:
            raise ExportError(f"{path}: opset {opset} is too new to be run here, {again}") from error
        raise ExportError(f"{path}: not an ONNX file that can be run: {error}") from error
    try:
        return version_converter.convert_version(model, OPSET), session
    except Exception as error:  # the same
        raise ExportError(f"{path}: opset {opset} cannot be brought to opset {OPSET}, {again}: {error}") from error


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


def check_whole(model: ModelProto, path: Path) -> None:
    """Check that a file holds its weights itself: the sha256 of a source is of one file.

    Raises:
        ExportError: they lie in another file.
    """
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise ExportError(
            f"{path}: its weights are in another file. Export it again with external_data=False, or save it as one "
            "file: onnx.save(onnx.load(old), new)"
        )


def check_input(card: ModelCard, session: InferenceSession, path: Path) -> None:
    """Check that a file has one input, float32 [N, 3, H, W] of the recipe's size (grey: one channel).

    Raises:
        ExportError: it has not.
    """
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise ExportError(f"{path}: has the inputs {[x.name for x in inputs]}, expected one")
    want = ["N", *_input_shape(card)]
    got = inputs[0].shape
    fits = len(got) == 4 and all(not isinstance(g, int) or g == w for g, w in zip(got[1:], want[1:], strict=True))
    if inputs[0].type != "tensor(float)" or not fits:
        raise ExportError(f"{path}: takes {inputs[0].type} {got}, but the card's recipe makes tensor(float) {want}")


def keep(model: ModelProto, picture: str, outputs: Mapping[str, str]) -> ModelProto:
    """Keep what leads from the input `picture` to the tensors that `outputs` names, by the names that they shall have.

    Any tensor of the graph can be one. Inner names get a prefix, so that they cannot be taken for the new ones.
    """
    kept = Extractor(model).extract_model([picture], list(outputs.values()))
    kept = compose.add_prefix(kept, "published/")
    del kept.graph.value_info[:]  # shapes with the old batch size
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


def free_batch(model: ModelProto, size: tuple[int, int], path: Path) -> ModelProto:
    """Give any batch size to a graph with one input [N or 1, 3, H, W] and float outputs whose first dimension is N.

    An exporter that was shown one picture writes its 1 into the shapes of `Reshape`; there it becomes ONNX's 0, "as it
    was". Whether that was all is not guessed: the graph answers batches of 2 and 3 as it answers pictures one by one.

    Args:
        model: left as it is.
        size: height and width of the input.
        path: of the published file, for the message.

    Raises:
        ExportError: the graph answers larger batches otherwise, or not at all.
    """
    channels = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value or 3
    pictures = np.random.default_rng(0).random((3, channels, *size), np.float32)
    names = [output.name for output in model.graph.output]
    expected = one_by_one(open_session(model.SerializeToString()), names, pictures)
    faults = []
    for candidate in (model, _with_free_shapes(model)):
        freed = _declare_batch(candidate, {name: one.shape for name, one in zip(names, expected, strict=True)})
        fault = _fault(freed, names, pictures, expected)
        if fault is None:
            return freed
        faults.append(fault)
    raise ExportError(f"{path}: the graph has its batch size built in, export it with a free one: {faults[-1]}")


def _input_shape(card: ModelCard) -> tuple[int, int, int]:
    """Return the shape of one picture as the file takes it."""
    channels, size = 1 if card.normalise.channels == "grey" else 3, (card.recipe.height, card.recipe.width)
    return (*size, channels) if card.options.get("channels_last") else (channels, *size)


def _channels_first(model: ModelProto) -> ModelProto:
    """Let a graph that takes [N, H, W, C] take [N, C, H, W]."""
    old = model.graph.input[0]
    batch, height, width, channels = (x.dim_value or x.dim_param for x in old.type.tensor_type.shape.dim)
    name = f"{old.name}/channels_first"
    model.graph.node.insert(0, helper.make_node("Transpose", [name], [old.name], perm=[0, 2, 3, 1]))
    old.CopyFrom(helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, channels, height, width]))
    return model


def _logarithm(model: ModelProto) -> ModelProto:
    """Turn the one output, probabilities, into logits: their softmax is what they were."""
    name = model.graph.output[0].name
    model.graph.node[-1].output[0] = f"{name}/softmax"
    model.graph.initializer.append(numpy_helper.from_array(np.array(_SMALLEST, np.float32), f"{name}/smallest"))
    model.graph.node.append(helper.make_node("Max", [f"{name}/softmax", f"{name}/smallest"], [f"{name}/positive"]))
    model.graph.node.append(helper.make_node("Log", [f"{name}/positive"], [name]))
    return model


def _chosen_output(card: ModelCard, session: InferenceSession, path: Path) -> str:
    names = [x.name for x in session.get_outputs()]
    chosen = card.options.get("output", names[0] if len(names) == 1 else None)
    if chosen not in names:
        raise ExportError(f"{path}: the card's option `output` is {chosen!r}, expected one of {names}")
    return str(chosen)


def _declare_batch(model: ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> ModelProto:
    freed = ModelProto()
    freed.CopyFrom(model)
    freed.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    for value in freed.graph.output:
        shape: list[str | int | None] = ["batch", *shapes[value.name][1:]]
        value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, shape))
    return freed


def _with_free_shapes(model: ModelProto) -> ModelProto:
    freed = ModelProto()
    freed.CopyFrom(model)
    graph = freed.graph
    constants = {x.name: numpy_helper.to_array(x) for x in graph.initializer}
    constants |= {node.output[0]: _constant(node) for node in graph.node if node.op_type == "Constant"}
    for number, node in enumerate(graph.node):
        if node.op_type != "Reshape" or node.input[0] in constants:
            continue
        shape = constants.get(node.input[1])
        if shape is not None and shape.size and shape[0] == 1:
            node.input[1] = f"free_shape/{number}"
            graph.initializer.append(numpy_helper.from_array(np.array([0, *shape[1:]]), node.input[1]))
            kept = [attribute for attribute in node.attribute if attribute.name != "allowzero"]
            del node.attribute[:]
            node.attribute.extend(kept)
    return freed


def _constant(node: onnx.NodeProto) -> npt.NDArray[Any]:
    value = helper.get_attribute_value(node.attribute[0])
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)


def _fault(
    model: ModelProto, names: list[str], pictures: npt.NDArray[np.float32], expected: list[npt.NDArray[np.float32]]
) -> str | None:
    """Say what a graph does wrong with batches of 2 and 3 pictures, or None."""
    try:
        session = open_session(model.SerializeToString())
        picture = session.get_inputs()[0].name
        for size in (2, 3):
            answers = session.run(names, {picture: pictures[:size]})
            for name, got, want in zip(names, answers, expected, strict=True):
                if not _close(got, want[:size]):
                    return f"it answers {size} pictures together otherwise than one by one, in {name!r}"
    except Exception as error:  # ONNX Runtime's errors have no common base of use
        return str(error)
    return None


def _close(got: npt.NDArray[np.float32], want: npt.NDArray[np.float32]) -> bool:
    noise = 1e-3 * float(np.abs(want).max(initial=0.0))
    return got.shape == want.shape and np.allclose(got, want, rtol=1e-3, atol=noise)
