"""One line in a notebook: a model of the zoo as a function.

    from zooserve import load

    model = load("yolov4_tiny")
    result = model("photo.jpg")
    result.boxes, result.labels, result.plot()

It is `zooserve` and not `zooserve_client`, which needs no models, no ONNX Runtime and no OpenCV, and stays that small.

What it has is imported when it is asked for: `bentoml serve zooserve:latest` looks for a module of that name before it
looks for the Bento, and must not load the service by that.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zooserve.models import Answer, LocalModel, Model, RemoteModel, load

__all__ = ["Answer", "LocalModel", "Model", "RemoteModel", "load"]


def __getattr__(name: str) -> Any:
    """Import what is asked for (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("zooserve.models"), name)
