"""A graph in half precision: float32 becomes float16 inside, inputs and outputs stay as they are."""

from pathlib import Path


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

        onnx.save(convert_float_to_float16(onnx.load(model), keep_io_types=True), path)
    return path
