"""From a name to its card, and whether it can be converted here. `zooserve export` and others that convert call it.

The libraries that know models by name are the entry points of the group `zooserve.cards` in pyproject.toml.
"""

import importlib.util

from zoo.errors import ExportError
from zoo.libraries import find_card

__all__ = ["find_card", "need_torch"]
_CONVERTERS = ("torch", "torchvision", "onnx", "onnxscript")


def need_torch() -> None:
    """Raise `ExportError` where the libraries that convert are not installed."""
    missing = [name for name in _CONVERTERS if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(f"this needs {', '.join(missing)}, not installed: install zooserve's extra `export`")
