"""An Ultralytics classifier (`yolo11n-cls`) as a plain torch module. `export.families.ultralytics` builds it."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from export.activation import with_activation
from export.ultralytics.layers import Body


def classifier(layers: Iterable[Any], height: int, width: int) -> nn.Module:
    """Return float32 [N, 3, H, W] -> `logits` [N, C] and the `activation` of its last maps, as the contract has it.

    Args:
        layers: of a model that ends in a head `Classify`: a convolution, global average pooling, a linear layer.
        height: of the input, in pixels.
        width: likewise.
    """
    return with_activation(_Classifier(list(layers)).eval(), height, width)


class _Classifier(nn.Module):
    """Answers logits; the library's head answers probabilities, too, or these alone."""

    def __init__(self, layers: list[Any]) -> None:
        super().__init__()
        self.body = Body(layers)
        head = layers[-1]
        self.features, self.pool, self.linear = head.conv, nn.AdaptiveAvgPool2d(1), head.linear

    def forward(self, x: Tensor) -> Tensor:
        maps = self.body(x)
        maps = torch.cat(maps, 1) if isinstance(maps, list) else maps
        logits: Tensor = self.linear(self.pool(self.features(maps)).flatten(1))
        return logits
