"""EfficientNet-Lite 0 to 4: EfficientNet without squeeze-and-excitation, ReLU6 for swish, stem and head of one width.

Tan and Le, "EfficientNet" (2019), and the Lite variants of the TPU reference models. The weights were trained in
TensorFlow, hence SAME padding and its epsilon. Attribute names are those of the PyTorch checkpoints.
"""

import math
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from export.activation import with_activation
from export.checkpoint import load, read_state_dict
from export.network import Network
from export.options import FamilyOptions
from export.padding import SameConv2d
from zoo.errors import ExportError
from zoo.labels import read_labels
from zoo.model_card import ModelCard


class Scale(NamedTuple):
    """How much wider and deeper than Lite0 a variant is."""

    width: float
    depth: float


class Stage(NamedTuple):
    """A run of blocks; the first of them has the stride and changes the width."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    width: int


SCALES = {
    "efficientnet_lite0": Scale(1.0, 1.0),
    "efficientnet_lite1": Scale(1.0, 1.1),
    "efficientnet_lite2": Scale(1.1, 1.2),
    "efficientnet_lite3": Scale(1.2, 1.4),
    "efficientnet_lite4": Scale(1.4, 1.8),
}
_STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
_STEM, _HEAD = 32, 1280
_EPSILON = 1e-3


class Options(FamilyOptions, frozen=True):
    """Of a card of this family; `build` says what they mean."""

    architecture: str = ""


def build(card: ModelCard, files: dict[str, Path]) -> Network:
    """Build the variant that the option `architecture` names and load its `weights` into it, strictly.

    Raises:
        ExportError: no such variant, or not a checkpoint of it.
    """
    architecture = str(card.options.get("architecture", ""))
    if architecture not in SCALES:
        raise ExportError(
            f"{card.name}: the option `architecture` is {architecture!r}, expected one of {', '.join(SCALES)}"
        )
    network = EfficientNetLite(SCALES[architecture], classes=len(read_labels(card.labels)))
    load(network, read_state_dict(files["weights"]), files["weights"], architecture)
    module = with_activation(network, card.recipe.height, card.recipe.width)
    return Network(module, f"torch {torch.__version__}", original=False)


class EfficientNetLite(nn.Module):
    """float32 [N, 3, H, W] -> logits [N, classes]."""

    def __init__(self, scale: Scale, classes: int) -> None:
        super().__init__()
        self._conv_stem = SameConv2d(3, _STEM, 3, stride=2, bias=False)
        self._bn0 = _norm(_STEM)
        blocks: list[nn.Module] = []
        before = _STEM
        for stage in _STAGES:
            after = _divisible(stage.width * scale.width)
            # The first and the last stage keep their depth, as the stem and the head keep their width.
            repeats = stage.repeats if stage in {_STAGES[0], _STAGES[-1]} else math.ceil(stage.repeats * scale.depth)
            for index in range(repeats):
                blocks.append(Block(before, after, stage.kernel, stage.stride if index == 0 else 1, stage.expansion))
                before = after
        self._blocks = nn.Sequential(*blocks)
        self._conv_head = nn.Conv2d(before, _HEAD, 1, bias=False)
        self._bn1 = _norm(_HEAD)
        self._fc = nn.Linear(_HEAD, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu6(self._bn0(self._conv_stem(x)))
        x = nn.functional.relu6(self._bn1(self._conv_head(self._blocks(x))))
        logits: Tensor = self._fc(x.mean((2, 3)))
        return logits


class Block(nn.Module):
    """Inverted residual of MobileNetV2: expand, convolve each channel, project."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = before * expansion
        self._expand_conv = nn.Conv2d(before, wide, 1, bias=False) if expansion != 1 else None
        self._bn0 = _norm(wide) if expansion != 1 else None
        self._depthwise_conv = SameConv2d(wide, wide, kernel, stride=stride, groups=wide, bias=False)
        self._bn1 = _norm(wide)
        self._project_conv = nn.Conv2d(wide, after, 1, bias=False)
        self._bn2 = _norm(after)
        self._residual = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        y = x
        if self._expand_conv is not None and self._bn0 is not None:
            y = nn.functional.relu6(self._bn0(self._expand_conv(y)))
        y = nn.functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        out: Tensor = x + y if self._residual else y
        return out


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_EPSILON)


def _divisible(width: float, by: int = 8) -> int:
    """Round to a multiple of eight, but never down by more than a tenth."""
    rounded = max(by, int(width + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * width else rounded
