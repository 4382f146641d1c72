"""Ultralytics' YOLOv3u, v5u, v8, v9, v10, 11, 12, 26 and RT-DETR, by name or from a `.pt` file.

Needs zooserve's extra `ultralytics`. That package is under the AGPL-3.0, and so are its authors' weights.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from export.network import Network
from export.ultralytics import published
from export.ultralytics.checkpoint import read_model
from export.ultralytics.classifier import classifier
from export.ultralytics.library import version
from export.ultralytics.network import UltralyticsNetwork
from export.ultralytics.published import card_for, describe
from export.ultralytics.rtdetr import RtDetrNetwork
from export.ultralytics.selection import PREDICT, VAL, VAL_OF_OBJECTS
from zoo.card import Task
from zoo.errors import ExportError
from zoo.model_card import ModelCard

__all__ = ["TASKS", "build", "card_for", "describe", "names"]
TASKS: Mapping[str, Task] = {
    "Detect": "detect", "v10Detect": "detect", "Segment": "segment", "Segment26": "segment", "Pose": "pose",
    "Pose26": "pose", "OBB": "obb", "OBB26": "obb", "Classify": "classify", "RTDETRDecoder": "detect",
}  # fmt: skip
"""What each of the heads that are decoded here is for."""
_BUILT_BY: dict[str, Callable[[list[Any], int, int], nn.Module]] = {
    "Classify": classifier,
    "RTDETRDecoder": RtDetrNetwork,
}
"""What builds the network of a head, where it is not `UltralyticsNetwork`."""


def build(card: ModelCard, files: dict[str, Path]) -> Network:
    """Read the checkpoint `weights`, without running code of its own, and build its network for the card's recipe.

    A card of this family has no options.

    Raises:
        ExportError: `ultralytics` is not installed; or the file wants code that is not allowed, holds a network for
            another task or number of channels, or does not run at the recipe's size.
    """
    if set(files) != {"weights"} or card.options:
        raise ExportError(
            f"{card.name}: a card of the family `ultralytics` has the source `weights` and no options, "
            f"but this one has {sorted(files)} and {sorted(card.options)}"
        )
    path = files["weights"]
    model = read_model(path)
    inner = getattr(model, "model", None)
    layers: list[Any] = list(inner) if isinstance(inner, nn.Sequential) and len(inner) else [model]
    head = type(layers[-1]).__name__
    if TASKS.get(head) != card.task:
        purpose = f"which is for the task {TASKS[head]}" if head in TASKS else f"expected one of {', '.join(TASKS)}"
        raise ExportError(
            f"{path}: the network ends in {head}, {purpose}; {card.name} is a card for the task {card.task}. Exported "
            "as ONNX, what has no meaning here is served as tensors (--task tensors)"
        )
    try:
        network = _network(card, layers, head, path)
    except ExportError:
        raise
    except Exception as error:  # layers of another version of the library fail in many ways
        raise ExportError(f"{path}: does not run with ultralytics {version()}: {error!r}") from error
    versions = {"ultralytics": version()}
    nms = not getattr(network, "end2end", True)
    return Network(
        network,
        f"torch {torch.__version__}",
        versions=versions,
        original=False,
        nms=nms,
        nms_options=PREDICT,
        evaluation=VAL if nms else VAL_OF_OBJECTS,
    )


def _network(card: ModelCard, layers: list[Any], head: str, path: Path) -> nn.Module:
    """Build the network for the card's recipe, and run it once."""
    channels, height, width = 1 if card.normalise.channels == "grey" else 3, card.recipe.height, card.recipe.width
    stride = 32 if head in _BUILT_BY else int(layers[-1].stride.max())
    if height % stride or width % stride:
        raise ExportError(f"{card.name}: the network needs sides that {stride} divides, not {height} x {width}")
    if (takes := next(weight for layer in layers for weight in layer.parameters()).shape[1]) != channels:
        raise ExportError(f"{path}: takes images of {takes} channels, but the card's have {channels}")
    network = _BUILT_BY.get(head, UltralyticsNetwork)(layers, height, width).eval()
    with torch.no_grad():
        network(torch.zeros(1, channels, height, width))
    return network


def names() -> list[str]:
    """Return the names of the checkpoints that Ultralytics publishes, as their files are called."""
    return list(published.NAMES)
