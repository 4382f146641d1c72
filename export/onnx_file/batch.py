"""A batch of any size for a graph that was exported for one image, and the proof that its images stay independent."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, TensorProto, compose, helper, numpy_helper

from export.batch import BATCH
from export.onnx_file.reading import one_by_one as run_one_by_one
from export.onnx_file.reading import open_session
from zoo.errors import ExportError


class BatchError(ExportError):
    """A graph that answers the images of a batch otherwise than each alone."""


def free_batch(model: ModelProto, size: tuple[int, int], path: Path, *, one_by_one: bool = False) -> ModelProto:
    """Give any batch size to a graph with one input [N or 1, 3, H, W] and float outputs whose first dimension is N.

    An exporter that was shown one image writes its 1 into the shapes of `Reshape`; there it becomes ONNX's 0, "as it
    was". Whether that was all is not guessed: the graph answers batches of 2 and 3 as it answers images one by one.

    Args:
        model: left as it is.
        size: height and width of the input.
        path: of the published file, for the message.
        one_by_one: let the graph run the images of a batch one after the other. That frees every graph, and is for
            those whose images are not independent of each other; a batch is no faster then than its images alone.

    Raises:
        BatchError: the graph answers larger batches otherwise, or not at all.
        ExportError: it answers with NaN.
    """
    channels = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value or 3
    images = np.random.default_rng(0).random((3, channels, *size), np.float32)
    names = [output.name for output in model.graph.output]
    expected = run_one_by_one(open_session(model.SerializeToString()), names, images)
    if any(np.isnan(one).any() for one in expected):
        raise ExportError(
            f"{path}: the graph answers noise with NaN, which is no number: its weights are damaged, or it overflows. "
            "Run it where it was trained, and export it again"
        )
    faults = []
    shapes = {name: one.shape for name, one in zip(names, expected, strict=True)}
    candidates = [_looped(model, shapes)] if one_by_one else [model, _with_free_shapes(model)]
    for candidate in candidates:
        freed = _declare_batch(candidate, shapes)
        fault = _fault(freed, names, images, expected)
        if fault is None:
            return freed
        faults.append(fault)
    if one_by_one:
        raise BatchError(f"{path}: the graph does not answer the same image alike, one by one neither: {faults[-1]}")
    raise BatchError(
        f"{path}: the graph has its batch size built in, export it with a free one, or write `one_by_one = true` into "
        f"the card's options: {faults[-1]}"
    )


def suppresses(model: ModelProto) -> int:
    """Count the operators that suppress boxes. Exporters write one for each image of the batch that they were shown."""
    return sum(node.op_type == "NonMaxSuppression" for node in _nodes(model.graph))


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes of a graph, and of the graphs within them."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _looped(model: ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> ModelProto:
    """Put a graph that takes one image into a `Scan` over the images of a batch."""
    inner = compose.add_prefix(model, "one/").graph  # names within may not be those without
    height_width = [side.dim_value or side.dim_param for side in inner.input[0].type.tensor_type.shape.dim][1:]
    axis = numpy_helper.from_array(np.array([0]), "scan/axis")
    body = helper.make_graph(
        [
            helper.make_node("Unsqueeze", ["scan/image", "scan/axis"], [inner.input[0].name]),
            *inner.node,
            *(helper.make_node("Squeeze", [f"one/{name}", "scan/axis"], [f"scan/{name}"]) for name in shapes),
        ],
        "one_image",
        [helper.make_tensor_value_info("scan/image", TensorProto.FLOAT, height_width)],
        [helper.make_tensor_value_info(f"scan/{k}", TensorProto.FLOAT, shape[1:]) for k, shape in shapes.items()],
        [*inner.initializer, axis],
    )
    looped = ModelProto()
    looped.CopyFrom(model)
    name = model.graph.input[0].name
    scan = helper.make_node("Scan", [name], list(shapes), body=body, num_scan_inputs=1)
    values = helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, *height_width])
    looped.graph.CopyFrom(helper.make_graph([scan], "batch", [values], list(model.graph.output)))
    return looped


def _declare_batch(model: ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> ModelProto:
    freed = ModelProto()
    freed.CopyFrom(model)
    freed.graph.input[0].type.tensor_type.shape.dim[0].dim_param = BATCH
    for value in freed.graph.output:
        shape: list[str | int | None] = [BATCH, *shapes[value.name][1:]]
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
    model: ModelProto, names: list[str], images: npt.NDArray[np.float32], expected: list[npt.NDArray[np.float32]]
) -> str | None:
    """Say what a graph does wrong with batches of 2 and 3 images, or None."""
    try:
        session = open_session(model.SerializeToString())
        image = session.get_inputs()[0].name
        for size in (2, 3):
            answers = session.run(names, {image: images[:size]})
            for name, got, want in zip(names, answers, expected, strict=True):
                if not _close(got, want[:size]):
                    return f"it answers {size} images together otherwise than one by one, in {name!r}"
    except Exception as error:  # ONNX Runtime's errors have no common base of use
        return str(error)
    return None


def _close(got: npt.NDArray[np.float32], want: npt.NDArray[np.float32]) -> bool:
    noise = 1e-3 * float(np.abs(want).max(initial=0.0))
    return got.shape == want.shape and np.allclose(got, want, rtol=1e-3, atol=noise)
