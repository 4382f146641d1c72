"""One torch module per Caffe layer, with its weights. `LAYERS` knows them by kind; another one is an entry there.

Sizes and arithmetic are those of https://caffe.berkeleyvision.org/tutorial/layers.html and of Caffe's own layers.
"""

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812, the name that everyone knows it by
from torch import Tensor, nn

from export.caffe.net import Layer
from zoo.errors import ExportError

Operation = Callable[[Tensor, Tensor], Tensor]


class Concat(nn.Module):
    """[N, C1, H, W], [N, C2, H, W], ... -> [N, C1 + C2 + ..., H, W]."""

    def forward(self, *parts: Tensor) -> Tensor:
        return torch.cat(parts, 1)


class Eltwise(nn.Module):
    """The weighted sum, the product or the maximum of tensors of one shape."""

    def __init__(self, operation: Operation, factors: list[float]) -> None:
        super().__init__()
        self.operation, self.factors = operation, factors

    def forward(self, *parts: Tensor) -> Tensor:
        if self.factors:
            parts = tuple(part * factor for part, factor in zip(parts, self.factors, strict=True))
        return reduce(self.operation, parts)


class LRN(nn.Module):
    """Local response normalisation across channels, Krizhevsky et al. (2012); alpha is of the sum, not of each."""

    def __init__(self, size: int, alpha: float, beta: float, k: float) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x: Tensor) -> Tensor:
        margin = self.size // 2
        squares = F.pad(x * x, (0, 0, 0, 0, margin, margin))
        total = sum((squares[:, i : i + x.shape[1]] for i in range(self.size)), torch.zeros(()))
        return x * (self.k + self.alpha / self.size * total) ** -self.beta


class Scale(nn.Module):
    """Multiply each channel, and add to it."""

    factor: Tensor
    offset: Tensor

    def __init__(self, factor: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.register_buffer("factor", factor.view(-1, 1, 1))
        self.register_buffer("offset", offset.view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor + self.offset


def _weights(layer: Layer, *shapes: tuple[int, ...]) -> list[Tensor]:
    """Return the layer's blobs, each in its shape, where -1 stands for whatever size."""
    found = [blob.shape for blob in layer.blobs]
    try:
        return [torch.from_numpy(b.reshape(s).copy()) for b, s in zip(layer.blobs, shapes, strict=True)]
    except ValueError as error:
        raise ExportError(f"{layer.where}: its weights have the shapes {found}, expected {list(shapes)}") from error


def _sizes(parameter: Any, name: str, default: int) -> tuple[int, int]:
    """Return height and width of a setting that is given once for both, twice, or as `_h` and `_w`."""
    short = name.removesuffix("_size")
    both = [*getattr(parameter, name), default]
    return getattr(parameter, f"{short}_h", 0) or both[0], getattr(parameter, f"{short}_w", 0) or both[len(both) > 2]


def _require(layer: Layer, condition: bool, what: str) -> None:
    if not condition:
        raise ExportError(f"{layer.where}: {what} is not supported")


def _convolution(layer: Layer) -> nn.Module:
    p = layer.message.convolution_param
    kernel = _sizes(p, "kernel_size", 0)
    _require(layer, p.axis == 1 and min(kernel) > 0, "a convolution over other axes than height and width")
    weight, *bias = _weights(layer, (p.num_output, -1, *kernel), *[(p.num_output,)] * p.bias_term)
    module = nn.Conv2d(
        weight.shape[1] * p.group,
        p.num_output,
        kernel,
        stride=_sizes(p, "stride", 1),
        padding=_sizes(p, "pad", 0),
        dilation=_sizes(p, "dilation", 1),
        groups=p.group,
        bias=p.bias_term,
    )
    module.load_state_dict(dict(zip(("weight", "bias"), (weight, *bias), strict=False)))
    return module


def _inner_product(layer: Layer) -> nn.Module:
    p = layer.message.inner_product_param
    _require(layer, p.axis == 1 and not p.transpose, "an inner product over other axes, or transposed,")
    weight, *bias = _weights(layer, (p.num_output, -1), *[(p.num_output,)] * p.bias_term)
    module = nn.Linear(weight.shape[1], p.num_output, bias=p.bias_term)
    module.load_state_dict(dict(zip(("weight", "bias"), (weight, *bias), strict=False)))
    return nn.Sequential(nn.Flatten(), module)


def _pooling(layer: Layer) -> nn.Module:
    p = layer.message.pooling_param
    average = p.pool == p.AVE
    _require(layer, p.pool in {p.MAX, p.AVE}, "stochastic pooling")
    if p.global_pooling:
        return nn.AdaptiveAvgPool2d(1) if average else nn.AdaptiveMaxPool2d(1)
    # Rounding sizes up is Caffe's way, and so is to count the padding into an average.
    kind = nn.AvgPool2d if average else nn.MaxPool2d
    kernel, stride, pad = _sizes(p, "kernel_size", 0), _sizes(p, "stride", 1), _sizes(p, "pad", 0)
    _require(
        layer, all(0 <= 2 * b <= k for b, k in zip(pad, kernel, strict=True)), "padding by more than half a window"
    )
    return kind(kernel, stride, pad, ceil_mode=p.round_mode == p.CEIL)


def _lrn(layer: Layer) -> nn.Module:
    p = layer.message.lrn_param
    _require(layer, p.norm_region == p.ACROSS_CHANNELS and p.local_size % 2 == 1, "LRN within channels or of even size")
    return LRN(p.local_size, p.alpha, p.beta, p.k)


def _concat(layer: Layer) -> nn.Module:
    p = layer.message.concat_param
    _require(layer, p.axis == 1 and p.concat_dim == 1, "concatenation of anything but channels")
    return Concat()


def _eltwise(layer: Layer) -> nn.Module:
    p = layer.message.eltwise_param
    operations: dict[int, Operation] = {p.PROD: torch.mul, p.SUM: torch.add, p.MAX: torch.maximum}
    _require(layer, len(p.coeff) in {0, len(layer.bottoms)}, f"a sum with {len(p.coeff)} coefficients")
    return Eltwise(operations[p.operation], list(p.coeff) if p.operation == p.SUM else [])


def _batch_norm(layer: Layer) -> nn.Module:
    mean, variance, total = _weights(layer, (-1,), (-1,), (1,))  # sums over `total` moving averages
    scale = 1 / total if total else total
    factor = (variance * scale + layer.message.batch_norm_param.eps).rsqrt()
    return Scale(factor, -mean * scale * factor)


def _scale(layer: Layer) -> nn.Module:
    p = layer.message.scale_param
    _require(layer, p.axis == 1 and p.num_axes == 1 and len(layer.bottoms) == 1, "scaling of anything but channels")
    factor, *offset = _weights(layer, (-1,), *[(-1,)] * p.bias_term)
    return Scale(factor, offset[0] if offset else torch.zeros_like(factor))


LAYERS: dict[str, Callable[[Layer], nn.Module]] = {
    "batchnorm": _batch_norm,
    "concat": _concat,
    "convolution": _convolution,
    "dropout": lambda _: nn.Identity(),
    "eltwise": _eltwise,
    "flatten": lambda _: nn.Flatten(),
    "innerproduct": _inner_product,
    "lrn": _lrn,
    "pooling": _pooling,
    "relu": lambda layer: nn.LeakyReLU(slope) if (slope := layer.message.relu_param.negative_slope) else nn.ReLU(),
    "scale": _scale,
    "softmax": lambda _: nn.Softmax(1),
    "split": lambda _: nn.Identity(),
}
