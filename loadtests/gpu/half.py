"""A graph in half precision: float32 becomes float16 inside, inputs and outputs stay as they are."""

from pathlib import Path
from typing import Any


def half(model: Path, folder: Path) -> Path:
    """Convert a graph, once, and return the new file.

    Args:
        model: path of the `model.onnx`.
        folder: where the result lies.

    Raises:
        ImportError: onnx is not installed.
    """
    path = folder / "model-fp16.onnx"
    if not path.exists():
        import onnx  # noqa: PLC0415 - the serving install does not contain it
        from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: PLC0415

        graph = onnx.load(model)
        _leave_out_empty_scales(graph.graph)
        onnx.save(convert_float_to_float16(graph, keep_io_types=True), path)
    return path


def _leave_out_empty_scales(graph: Any) -> None:
    """Of a Resize with `sizes`, leave out `scales` that are there but empty: the converter puts a Cast before them.

    They are no constant then, and ONNX Runtime refuses a Resize that may have both.
    """
    empty = {tensor.name for tensor in graph.initializer if 0 in tensor.dims}
    for node in graph.node:
        if node.op_type == "Constant" and any(0 in attribute.t.dims for attribute in node.attribute):
            empty.update(node.output)
        elif node.op_type == "Resize" and len(node.input) > 2 and node.input[2] in empty:
            node.input[2] = ""
