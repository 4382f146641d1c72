"""Whether models can be converted here at all. Commands of `export` ask before they import torch."""

import importlib.util

from zoo.errors import ExportError
from zoo.extras import install

_CONVERTERS = ("torch", "torchvision", "onnx", "onnxscript")


def need_torch() -> None:
    """Raise `ExportError` where the libraries that convert are not installed."""
    missing = [name for name in _CONVERTERS if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(f"converting needs {', '.join(missing)}, which is not installed: {install('export')}")
