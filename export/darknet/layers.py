"""The layers of a Darknet network, `[yolo]` apart: one module per kind of section, each knowing its output's shape.

`export.darknet.network` makes them from the sections of a cfg and passes each the outputs of the layers that it reads.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.darknet.cfg import Section
from export.darknet.weights import WeightsReader

_BATCH_NORM_EPSILON = 1e-5
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "leaky": partial(functional.leaky_relu, negative_slope=0.1),
    "linear": lambda x: x,
    "logistic": torch.sigmoid,
    "mish": functional.mish,
    "relu": torch.relu,
    "swish": functional.silu,
}


class Shape(NamedTuple):
    """Of one image's activations."""

    channels: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.channels} x {self.height} x {self.width}"


class Convolutional(nn.Module):
    """Convolution, batch normalisation where the section says so, activation."""

    def __init__(self, section: Section, inputs: list[Shape]) -> None:
        """Build it with random weights; `load_weights` fills it.

        Raises:
            ExportError: the section asks for what is not supported or does not fit its input.
        """
        super().__init__()
        (given,) = inputs
        filters, groups = section.integer("filters", 1, minimum=1), section.integer("groups", 1, minimum=1)
        size, stride = section.integer("size", 1, minimum=1), section.integer("stride", 1, minimum=1)
        padding = size // 2 if section.integer("pad", 0) else section.integer("padding", 0, minimum=0)
        normalised = section.integer("batch_normalize", 0) != 0
        if given.channels % groups or filters % groups:
            raise section.error(
                f"`groups` is {groups}, but must divide its {given.channels} channels and {filters} filters", "groups"
            )
        self.convolution = nn.Conv2d(given.channels, filters, size, stride, padding, groups=groups, bias=not normalised)
        self.normalisation = nn.BatchNorm2d(filters, _BATCH_NORM_EPSILON) if normalised else None
        self.activation = _activation(section, default="logistic")
        height, width = ((side + 2 * padding - size) // stride + 1 for side in (given.height, given.width))
        self.shape = Shape(filters, height, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolution(x)
        if self.normalisation is not None:
            x = self.normalisation(x)
        return self.activation(x)

    @torch.no_grad()
    def load_weights(self, reader: WeightsReader, section: str) -> None:
        """Take biases, the batch normalisation's scales, means and variances if there is one, and the kernel.

        Raises:
            ExportError: the values do not suffice, or are no weights.
        """
        norm, conv = self.normalisation, self.convolution
        if norm is None:
            pieces = {"biases": conv.bias}
        else:
            pieces = {
                "biases": norm.bias,
                "scales": norm.weight,
                "rolling means": norm.running_mean,
                "rolling variances": norm.running_var,
            }
        for what, tensor in {**pieces, "kernel": conv.weight}.items():
            if tensor is not None:
                tensor.copy_(torch.from_numpy(reader.take(tuple(tensor.shape), what, section)))


class MaxPool(nn.Module):
    """Max-pooling; `padding`, size - 1 by default, is the sum of both sides, and left and top get the smaller half."""

    def __init__(self, section: Section, inputs: list[Shape]) -> None:
        """Build it.

        Raises:
            ExportError: the section asks for what is not supported.
        """
        super().__init__()
        (given,) = inputs
        self.stride = section.integer("stride", 1, minimum=1)
        self.size = section.integer("size", self.stride, minimum=1)
        padding = section.integer("padding", self.size - 1, minimum=0)
        height, width = ((side + padding - self.size) // self.stride + 1 for side in (given.height, given.width))
        self.shape = Shape(given.channels, height, width)
        # How far the last window really reaches: 2 x 2 with stride 2 needs no padding on an even side.
        self.before = padding // 2
        self.right = max(0, (width - 1) * self.stride + self.size - self.before - given.width)
        self.bottom = max(0, (height - 1) * self.stride + self.size - self.before - given.height)

    def forward(self, x: Tensor) -> Tensor:
        if self.before == self.right == self.bottom and 2 * self.before <= self.size:
            return functional.max_pool2d(x, self.size, self.stride, self.before)
        x = functional.pad(x, (self.before, self.right, self.before, self.bottom), value=float("-inf"))
        return functional.max_pool2d(x, self.size, self.stride)


class Upsample(nn.Module):
    """Repeats each value `stride` times in both directions."""

    def __init__(self, section: Section, inputs: list[Shape]) -> None:
        """Build it.

        Raises:
            ExportError: the section asks for what is not supported.
        """
        super().__init__()
        (given,) = inputs
        self.stride = section.integer("stride", 2, minimum=1)
        self.shape = Shape(given.channels, self.stride * given.height, self.stride * given.width)

    def forward(self, x: Tensor) -> Tensor:
        return functional.interpolate(x, scale_factor=float(self.stride), mode="nearest")


class Route(nn.Module):
    """Concatenates channels: of each layer that it reads the whole, or the `group_id`-th of `groups` equal parts."""

    def __init__(self, section: Section, inputs: list[Shape]) -> None:
        """Build it.

        Raises:
            ExportError: the layers that it reads differ in height or width, or cannot be cut into `groups`.
        """
        super().__init__()
        self.groups = section.integer("groups", 1, minimum=1)
        self.group_id = section.integer("group_id", 0, minimum=0)
        shapes = ", ".join(map(str, inputs))
        if len({(given.height, given.width) for given in inputs}) > 1:
            raise section.error(f"joins layers of different height or width: {shapes}", "layers")
        if any(given.channels % self.groups for given in inputs):
            raise section.error(f"`groups` is {self.groups}, but must divide the channels of {shapes}", "groups")
        if self.group_id >= self.groups:
            raise section.error(f"`group_id` is {self.group_id}, but must be under `groups`, {self.groups}", "group_id")
        channels = sum(given.channels for given in inputs) // self.groups
        self.shape = Shape(channels, inputs[0].height, inputs[0].width)

    def forward(self, *inputs: Tensor) -> Tensor:
        if self.groups > 1:
            inputs = tuple(x.chunk(self.groups, dim=1)[self.group_id] for x in inputs)
        return torch.cat(inputs, dim=1) if len(inputs) > 1 else inputs[0]


class Shortcut(nn.Module):
    """Adds the layers that it reads."""

    def __init__(self, section: Section, inputs: list[Shape]) -> None:
        """Build it.

        Raises:
            ExportError: the layers that it reads differ in shape.
        """
        super().__init__()
        if len(set(inputs)) > 1:
            raise section.error(f"adds layers of different shape: {', '.join(map(str, inputs))}", "from")
        self.activation = _activation(section, default="linear")
        self.shape = inputs[0]

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        for other in others:
            x = x + other
        return self.activation(x)


def _activation(section: Section, default: str) -> Callable[[Tensor], Tensor]:
    name = section.text("activation", default)
    if name not in _ACTIVATIONS:
        raise section.error(f"`activation` is {name!r}; supported are {', '.join(_ACTIVATIONS)}", "activation")
    return _ACTIVATIONS[name]
