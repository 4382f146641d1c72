"""Where a classifier looked: class activation maps, for networks that end in global average pooling and one layer.

Families of classifiers hand their network to `with_activation`. Zhou et al., "Learning Deep Features for Discriminative
Localization" (CVPR 2016): the weights with which a class sums the pooled features sum them before the pooling, too.
"""

import operator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812, its usual name
from torch import Tensor, fx, nn

_PASSING = (nn.Dropout, nn.Flatten, nn.Identity, F.dropout, torch.flatten, "flatten")
_LINEAR = (nn.Linear, F.linear, nn.Conv2d)
_POOLING = (nn.AdaptiveAvgPool2d, F.adaptive_avg_pool2d, torch.mean, "mean")
_CLOSE = 1e-4  # of the largest logit: float noise


def with_activation(network: nn.Module, height: int, width: int) -> nn.Module:
    """Let a classifier answer with its class activation map, where it has one.

    The network's end is found by tracing it, and checked with a random image: the mean of the features, times
    the weights, plus the bias, must be the logits.

    Args:
        network: in eval mode, float32 [N, 3, H, W] -> [N, C].
        height: of its input, in pixels.
        width: likewise.

    Returns:
        A module that answers with `logits` [N, C] and, where the network ends in global average pooling and at most one
        linear layer after it, `activation` [N, h, w]. Its `network` holds what was trained, under the names it had.
    """
    try:
        ending = _find_ending(network)
    except Exception:  # a network whose control flow depends on its input; tracing raises errors of many kinds
        ending = None
    if ending is None or not _is_true(ending, network, height, width):
        return Logits(network)
    return ClassActivation(ending.network, ending.weight)


class Logits(nn.Module):
    """Names the answer of a classifier: float32 [N, 3, H, W] -> `logits` [N, C]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.network(x)}


class ClassActivation(nn.Module):
    """float32 [N, 3, H, W] -> `logits` [N, C] and `activation` [N, h, w], the map of the top class.

    Args:
        network: answers with its last feature maps [N, F, h, w] and its logits [N, C].
        weight: of the layer between the pooled features and the logits, [C, F]; None where there is no such layer:
            each class has a feature map of its own then.
    """

    def __init__(self, network: nn.Module, weight: Tensor | None) -> None:
        super().__init__()
        self.network = network
        self.weight = weight  # the layer's own parameter, so it is stored once

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features, logits = self.network(x)
        top = logits.argmax(1)
        height, width = features.shape[2:]
        if self.weight is None:
            activation = features.gather(1, top[:, None, None, None].expand(-1, 1, height, width))
        else:  # of the top class alone, which is next to no work
            activation = self.weight.index_select(0, top)[:, None] @ features.flatten(2)
        return {"logits": logits, "activation": activation.reshape(-1, height, width)}


class _Ending(NamedTuple):
    """A network that answers with its last feature maps too, and the layer behind their pooling, if there is one."""

    network: fx.GraphModule
    weight: Tensor | None
    bias: Tensor | None


class _Tracer(fx.Tracer):
    """Follows the end of a network. A part with convolutions is one step: what happens in it is of no interest here."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        convolves = any(isinstance(part, nn.Conv2d) and part.kernel_size != (1, 1) for part in m.modules())
        return convolves or super().is_leaf_module(m, module_qualified_name)


def _find_ending(network: nn.Module) -> _Ending | None:
    """Trace back from the answer: linear layer <- dropout, flatten <- global average pooling <- features."""
    traced = fx.GraphModule(network, _Tracer().trace(network))
    output: Any = traced.graph.output_node()
    logits = output.args[0]
    node = _skip(traced, logits)
    weight = bias = None
    if _operation(traced, node) in _LINEAR:
        weight, bias = _parameters(traced, node)
        node = _skip(traced, node.args[0])
    if _operation(traced, node) not in _POOLING:
        return None
    features = node.args[0]
    if (1, 2) in (*node.args[1:], node.kwargs.get("dim")):  # the mean over [N, h, w, F]
        with traced.graph.inserting_before(output):
            features = traced.graph.call_method("permute", (features, 0, 3, 1, 2))
    output.args = ((features, logits),)
    traced.recompile()
    return _Ending(traced, weight, bias)


def _is_true(ending: _Ending, network: nn.Module, height: int, width: int) -> bool:
    """Whether the mean of the features, times the weights, plus the bias, is the answer to random images."""
    x = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(x)
        if not expected.isfinite().all():
            return False
        features, logits = ending.network(x)
        if features.ndim != 4:
            return False
        summed = features.mean((2, 3))
        if ending.weight is not None and ending.weight.shape[1:] == summed.shape[1:]:
            summed = F.linear(summed, ending.weight, ending.bias)
    close = _CLOSE * float(expected.abs().max())
    return all(y.shape == expected.shape and torch.allclose(y, expected, 0, close) for y in (logits, summed))


def _skip(traced: fx.GraphModule, node: Any) -> Any:
    """Go back over what leaves the numbers as they are."""
    while _operation(traced, node) in _PASSING:
        node = node.args[0]
    return node


def _operation(traced: fx.GraphModule, node: Any) -> Any:
    """What a step does: the type of a module, a function, the name of a method; None where it is no step."""
    if not isinstance(node, fx.Node):
        return None
    return type(traced.get_submodule(str(node.target))) if node.op == "call_module" else node.target


def _parameters(traced: fx.GraphModule, node: Any) -> tuple[Tensor, Tensor | None]:
    """The weight [C, F] and the bias [C] of a linear layer, or of a convolution over one pixel."""
    if node.op == "call_module":
        layer: Any = traced.get_submodule(node.target)
        return layer.weight.flatten(1), layer.bias
    # F.linear(x, weight, bias), whose tensors the trace fetches by their names
    weight, bias = (step and operator.attrgetter(step.target)(traced) for step in node.args[1:3])
    return weight, bias
