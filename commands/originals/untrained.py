"""Networks of Ultralytics' with random weights: real weights of poses and rotated boxes cannot be had everywhere."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from commands.originals.differences import Pixels
from export.ultralytics.library import import_library


def untrained(name: str, images: Sequence[Pixels], classes: int | None = None) -> Any:
    """Return Ultralytics' `YOLO` of an architecture, such as yolo11n-pose, with values of one scale throughout.

    Args:
        name: of the architecture, and its task.
        images: uint8 [height, width, 3] RGB, of one size that 32 divides; the best scores on them are about 0.9.
        classes: how many; None: as many as the architecture's description has.
    """
    torch.manual_seed(1)
    yolo: Any = import_library("ultralytics").YOLO(f"{name}.yaml", task=name.rpartition("-")[2])
    if classes is not None:
        own = type(yolo.model)(f"{name}.yaml", nc=classes, verbose=False)
        own.args, own.task = yolo.model.args, yolo.model.task
        yolo.model = own
    model = yolo.model
    inputs = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0  # takes over what it sees, so that values stay of one scale throughout the network
    with torch.no_grad():
        model.train()(inputs)
    model.eval()
    head = model.model[-1]
    branches = getattr(head, "one2one_cv3", None) or head.cv3
    with torch.no_grad():
        raw = model(inputs)[1]
        logits = raw.get("one2one", raw)["scores"]
        for branch in branches:
            branch[-1].weight /= logits.std()
            branch[-1].bias[:] = (branch[-1].bias - logits.max()) / logits.std() + 2
    return yolo
