"""The batch of a served graph: one symbolic first dimension, `batch`, of every input and output.

A GPU's outputs are allocated before a run, by the shapes that the graph is known to have: where its output is known to
have one row, no more can be bound. `export.convert`, `export.tensors` and `export.variant` name it, and a session says
whether ONNX Runtime, which infers shapes itself, came to the same.
"""

from onnx import GraphProto, ModelProto, TensorShapeProto
from onnxruntime import InferenceSession

from zoo.errors import ExportError

BATCH = "batch"


def name_batch(model: ModelProto) -> bool:
    """Call the free first dimensions of all inputs and outputs `batch`, and forget the shapes of inner values.

    Those are as the exporter of a published network saw them, often with a batch of one, and ONNX Runtime believes
    them more than what it infers. A first dimension that is a number stays: `check_batch` refuses it.

    Returns:
        Whether that changed anything.
    """
    graph = model.graph
    changed = bool(graph.value_info)
    del graph.value_info[:]
    for shape in _shapes(graph):
        # Paddle's exporters write -1 for what is free.
        if shape.dim and shape.dim[0].dim_value <= 0 and shape.dim[0].dim_param != BATCH:
            shape.dim[0].dim_param = BATCH
            changed = True
    return changed


def declare_free(model: ModelProto) -> int:
    """Call a fixed first dimension `batch`, where it is the same number in all inputs and outputs.

    The number is often only what the exporter was shown. Whether it is built into the graph, too, is for the caller to
    prove: with another number of rows.

    Returns:
        The number, or 0 where nothing was changed.
    """
    shapes = _shapes(model.graph)
    sizes = {shape.dim[0].dim_value if shape.dim else 0 for shape in shapes}
    if len(sizes) != 1 or max(sizes) < 1:
        return 0
    del model.graph.value_info[:]
    for shape in shapes:
        shape.dim[0].dim_param = BATCH
    return int(max(sizes))


def _shapes(graph: GraphProto) -> list[TensorShapeProto]:
    constants = {tensor.name for tensor in graph.initializer}
    values = [x for x in (*graph.input, *graph.output) if x.name not in constants]
    return [x.type.tensor_type.shape for x in values if x.type.tensor_type.HasField("shape")]


def check_batch(session: InferenceSession) -> None:
    """Check that a graph takes and answers any number of rows, as ONNX Runtime knows its shapes.

    Raises:
        ExportError: naming the input or output whose first dimension is another.
    """
    faults = [
        f"the {kind} {value.name!r} has the shape {value.shape}"
        for kind, values in (("input", session.get_inputs()), ("output", session.get_outputs()))
        for value in values
        if not value.shape or value.shape[0] != BATCH
    ]
    if not faults:
        return
    scalar = any(not value.shape for value in session.get_inputs())
    more = ""
    if scalar:
        more = (
            ". A number without dimensions counts for all rows at once, but rows come from several requests: make it a "
            "constant; and move the batch of a state to the front"
        )
    raise ExportError(
        f"{', '.join(faults)}, whose first dimension is not a free batch: export the network again with a dynamic "
        "batch as the first dimension of every input and output, and with no batch size in its constants (of Reshape "
        f"or Expand){more}"
    )
