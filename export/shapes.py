"""No arithmetic on shapes in a served graph: what its exporter left to be computed in every run is settled beforehand.

The input's size is fixed, so all shapes are, but for the batch. Exporters compute them nevertheless (Shape, Gather,
Concat, Range), which a GPU does on the CPU between its own operators, and which CUDA graphs forbid. `export.convert`
calls `settle`. What such a graph computes is not guessed from its operators: it is run with several batches, and what
came out alike is a constant. `export.parity` compares the result with the reference as it does every graph.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

Array = npt.NDArray[Any]
Seen = Mapping[str, list[Array]]
_BATCHES = (1, 2, 3)
_LARGEST = 4096  # elements of a constant: larger ones would make the file larger
_SHAPE = "/settled_shape"
_SHAPED_BY = {
    "Compress": (1,),
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "NonMaxSuppression": (0, 1),
    "NonZero": (0,),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Tile": (1,),
    "TopK": (1,),
    "Unique": (0,),
}
"""The inputs whose values, not only their shapes, decide what shape an operator answers."""
_IMPURE = ("QuantizeLinear", "DequantizeLinear")  # of constants: they keep a file small


def settle(model: ModelProto) -> None:
    """Replace arithmetic on shapes by constants, in place, and drop what nothing reads.

    Shapes with a batch in them become ones without: -1 in Reshape (a flatten is one Reshape then), 1 in Expand, and
    the axes of Resize. Where the batch itself is needed (a token that is repeated for every image) its Shape stays.
    """
    graph = model.graph
    values = shape_values(graph)
    if values:
        seen = _run(model, values)
        for node in list(graph.node):
            _settle_node(graph, node, values, seen)
        _make_constant(graph, values, seen)
    _join_reshapes(graph)
    drop_unread(graph)


def shape_values(graph: GraphProto) -> set[str]:
    """Names of the values that are computed from nothing but constants and shapes. These do not depend on data."""
    known = {tensor.name for tensor in graph.initializer}
    constants = set(known)
    open_shape: set[str] = set()  # values whose shape depends on data
    for node in graph.node:
        outputs = {name for name in node.output if name}
        deciding = [node.input[i] for i in _SHAPED_BY.get(node.op_type, ()) if i < len(node.input) and node.input[i]]
        inner = any(attribute.g.node or attribute.graphs for attribute in node.attribute)
        if inner or open_shape.intersection(node.input) or not known.issuperset(deciding):
            open_shape |= outputs
        elif node.op_type == "Constant":
            known |= outputs
            constants |= outputs
        elif node.op_type in {"Shape", "Size"} or (_is_pure(node) and known.issuperset(filter(None, node.input))):
            known |= outputs
    return known - constants


def _is_pure(node: NodeProto) -> bool:
    return bool(node.input) and node.op_type not in _IMPURE and not node.op_type.startswith("Random")


def _run(model: ModelProto, values: set[str]) -> Seen:
    """Run a graph with several batches of noise, and return what its shape values were, and the shapes around them."""
    read = {name for node in model.graph.node if not values.issuperset(node.output) for name in reads(node)}
    wanted = sorted(values & (read | {output.name for output in model.graph.output}))
    shaped = {
        name
        for node in model.graph.node
        if not values.issuperset(node.output) and values.intersection(node.input)
        for name in (node.input[0], node.output[0])
        if name
    }
    probed = ModelProto()
    probed.CopyFrom(model)
    del probed.graph.value_info[:], probed.graph.output[:]
    shapes = [f"{name}{_SHAPE}" for name in sorted(shaped)]
    probed.graph.node.extend(helper.make_node("Shape", [name.removesuffix(_SHAPE)], [name]) for name in shapes)
    probed.graph.output.extend(ValueInfoProto(name=name) for name in (*wanted, *shapes))  # of types that are inferred
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(probed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()
    seen: dict[str, list[Array]] = {name: [] for name in (*wanted, *shapes)}
    for size in _BATCHES:
        noise = np.random.default_rng(size).integers(0, 256, (size, *image.shape[1:]), np.uint8)
        for name, value in zip(seen, session.run(list(seen), {image.name: noise}), strict=True):
            seen[name].append(value)
    return seen


def reads(node: NodeProto) -> Iterator[str]:
    """The values that a node reads, those of the graphs within it included."""
    yield from filter(None, node.input)
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            for each in inner.node:
                yield from reads(each)


def _settle_node(graph: GraphProto, node: NodeProto, values: set[str], seen: Seen) -> None:
    """Give a node that reads a shape with a batch in it one without, where there is one."""
    if values.issuperset(node.output) or not node.input:
        return
    before, after = (seen.get(f"{name}{_SHAPE}", []) for name in (node.input[0], node.output[0]))
    match node.op_type:
        case "Reshape" if node.input[1] in values:
            if len(_varying(after)) <= 1:
                _reshape(graph, node, after)
        case "Expand" if node.input[1] in values:
            pairs = list(zip(before, after, strict=True))
            if all(len(b) == len(a) for b, a in pairs):
                kept = [all(b[axis] == a[axis] for b, a in pairs) for axis in range(len(after[0]))]
                if all(kept[axis] for axis in _varying(after)):
                    sides = [1 if keep else int(side) for keep, side in zip(kept, after[0], strict=True)]
                    node.input[1] = _constant(graph, f"{node.output[0]}{_SHAPE}", sides)
        case "Resize" if len(node.input) > 3 and node.input[3] in values:
            changed = sorted({axis for b, a in zip(before, after, strict=True) for axis in np.flatnonzero(b != a)})
            if changed and not set(changed) & _varying(after) and not any(x.name == "axes" for x in node.attribute):
                sizes = _constant(graph, f"{node.output[0]}{_SHAPE}", [int(after[0][axis]) for axis in changed])
                node.input[:] = [node.input[0], "", "", sizes]
                node.attribute.append(helper.make_attribute("axes", [int(axis) for axis in changed]))
        case "Gather" if node.input[1] in values:  # torch's flatten of an image whose channels are last in memory
            pairs = list(zip(seen[node.input[1]], before, strict=True))
            whole = all(len(b) == 1 and np.array_equal(indices.ravel(), np.arange(b[0])) for indices, b in pairs)
            if whole and len(_varying(after)) <= 1:
                node.op_type = "Reshape"
                _reshape(graph, node, after)


def _varying(shapes: list[Array]) -> set[int]:
    """The axes that are not the same in all shapes."""
    return {axis for axis in range(len(shapes[0])) if len({int(shape[axis]) for shape in shapes}) > 1}


def _reshape(graph: GraphProto, node: NodeProto, shapes: list[Array]) -> None:
    """Let a Reshape answer the shapes that were seen, of which one axis varies at most."""
    varying = _varying(shapes)
    sides = [-1 if axis in varying else int(side) for axis, side in enumerate(shapes[0])]
    node.input[1] = _constant(graph, f"{node.output[0]}{_SHAPE}", sides)
    del node.attribute[:]


def _constant(graph: GraphProto, name: str, value: list[int]) -> str:
    graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), name))
    return name


def _make_constant(graph: GraphProto, values: set[str], seen: Seen) -> None:
    """Make constants of the values that were the same in all batches, under their names."""
    settled = {}
    for name in values & seen.keys():
        first, *others = seen[name]
        if first.size <= _LARGEST and all(np.array_equal(first, other) for other in others):
            settled[name] = first
    for node in list(graph.node):
        if len(node.output) == 1 and node.output[0] in settled:
            graph.node.remove(node)
            graph.initializer.append(numpy_helper.from_array(settled[node.output[0]], node.output[0]))


def _join_reshapes(graph: GraphProto) -> None:
    """Let a Reshape read what another Reshape reads, where it does not take a side over from that."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    makers = {node.output[0]: node for node in graph.node if node.op_type == "Reshape"}
    for node in makers.values():
        shape = constants.get(node.input[1])
        if shape is not None and shape.data_type == TensorProto.INT64 and numpy_helper.to_array(shape).all():
            while (maker := makers.get(node.input[0])) is not None:
                node.input[0] = maker.input[0]


def drop_unread(graph: GraphProto) -> None:
    """Drop nodes and constants that nothing reads."""
    read = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if read.intersection(node.output):
            read.update(reads(node))
            kept.append(node)
    constants = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(constants)
