"""Runs the layers of an Ultralytics network up to its head. The networks of this package share it."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from export.ultralytics.network import inputs_of


class Body(nn.Module):
    """The layers before the head, and what each of them takes.

    Args:
        layers: of a model, of which the last is the head.
    """

    def __init__(self, layers: Iterable[Any]) -> None:
        super().__init__()
        *body, head = layers
        self._sources: list[int | list[int]] = [layer.f for layer in (*body, head)]
        self.layers = nn.ModuleList(body)

    def forward(self, x: Tensor) -> Any:
        """float32 [N, 3, H, W] -> what the head takes: a tensor, or a list of maps [N, F, h, w]."""
        made: list[Tensor] = []
        for layer, source in zip(self.layers, self._sources[:-1], strict=True):
            x = layer(inputs_of(source, x, made))
            made.append(x)
        return inputs_of(self._sources[-1], x, made)
