"""What a classifier answers beside its classes: where it looked (a class activation map), and its embedding.

Families of classifiers hand their network to `with_activation`. Embeddings are for networks that end in a linear layer:
what it reads. Maps are for those with global average pooling before it. Zhou et al., "Learning Deep Features for
Discriminative Localization" (CVPR 2016): the weights with which a class sums the pooled features sum them before the
pooling, too.
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
    """Let a classifier answer with its class activation map and its embedding, where it has them.

    The network's end is found by tracing it, and checked with random images: the embedding, times the weights, plus the
    bias, must be the logits, and so must the mean of the features.

    Args:
        network: in eval mode, float32 [N, 3, H, W] -> [N, C].
        height: of its input, in pixels.
        width: likewise.

    Returns:
        A module that answers with `logits` [N, C]; where the network ends in a linear layer, with `embedding` [N, F],
        which that layer reads; and where it ends in global average pooling and at most one linear layer after it, with
        `activation` [N, h, w]. Its `network` holds what was trained, under the names it had.
    """
    try:
        ending = _find_ending(network)
    except Exception:  # a network whose control flow depends on its input; tracing raises errors of many kinds
        return Logits(network)
    embeds, maps = _what_is_true(ending, network, height, width)
    if not (embeds or maps):
        return Logits(network)
    return Views(ending.network, ending.weight, embeds=embeds, maps=maps)


class Logits(nn.Module):
    """Names the answer of a classifier: float32 [N, 3, H, W] -> `logits` [N, C]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.network(x)}


class Views(nn.Module):
    """float32 [N, 3, H, W] -> `logits` [N, C], `activation` [N, h, w], the map of the top class, `embedding` [N, F].

    Args:
        network: answers with its logits [N, C], what its last layer reads ([N, F] or [N, F, 1, 1]), and its last
            feature maps [N, F, h, w].
        weight: of the layer between the pooled features and the logits, [C, F]; None where there is no such layer:
            each class has a feature map of its own then.
        embeds: whether it answers with `embedding`.
        maps: whether it answers with `activation`.
    """

    def __init__(self, network: nn.Module, weight: Tensor | None, *, embeds: bool, maps: bool) -> None:
        super().__init__()
        self.network = network
        self.weight = weight  # the layer's own parameter, so it is stored once
        self.embeds = embeds
        self.maps = maps

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        logits, read, features = self.network(x)
        answers: dict[str, Tensor] = {"logits": logits}
        if self.maps:
            answers["activation"] = self._activation(logits, features)
        if self.embeds:
            answers["embedding"] = read.flatten(1)
        return answers

    def _activation(self, logits: Tensor, features: Tensor) -> Tensor:
        top = logits.argmax(1)
        height, width = features.shape[2:]
        if self.weight is None:
            activation = features.gather(1, top[:, None, None, None].expand(-1, 1, height, width))
        else:  # of the top class alone, which is next to no work
            activation = self.weight.index_select(0, top)[:, None] @ features.flatten(2)
        return activation.reshape(-1, height, width)


class _Ending(NamedTuple):
    """A network that answers with its logits, what its last layer reads and its last feature maps; and that layer.

    Either of the last two answers may be None, and so may be the layer.
    """

    network: fx.GraphModule
    weight: Tensor | None
    bias: Tensor | None


class _Tracer(fx.Tracer):
    """Follows the end of a network. A part with convolutions is one step: what happens in it is of no interest here."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        convolves = any(isinstance(part, nn.Conv2d) and part.kernel_size != (1, 1) for part in m.modules())
        return convolves or super().is_leaf_module(m, module_qualified_name)


def _find_ending(network: nn.Module) -> _Ending:
    """Trace back from the answer: linear layer <- dropout, flatten <- global average pooling <- features."""
    traced = fx.GraphModule(network, _Tracer().trace(network))
    output: Any = traced.graph.output_node()
    logits = output.args[0]
    node = _skip(traced, logits)
    weight = bias = read = features = None
    if _operation(traced, node) in _LINEAR:
        weight, bias = _parameters(traced, node)
        read = node.args[0]
        node = _skip(traced, read)
    if _operation(traced, node) in _POOLING:
        features = node.args[0]
        if (1, 2) in (*node.args[1:], node.kwargs.get("dim")):  # the mean over [N, h, w, F]
            with traced.graph.inserting_before(output):
                features = traced.graph.call_method("permute", (features, 0, 3, 1, 2))
    output.args = ((logits, read, features),)
    traced.recompile()
    return _Ending(traced, weight, bias)


def _what_is_true(ending: _Ending, network: nn.Module, height: int, width: int) -> tuple[bool, bool]:
    """Whether the embeddings of random images, and the means of their features, lead to the network's own answer."""
    x = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(x)
        logits, read, features = ending.network(x)
    close = _CLOSE * float(expected.abs().max())

    def leads_there(values: Tensor) -> bool:
        if ending.weight is not None:
            if ending.weight.shape[1:] != values.shape[1:]:
                return False
            values = F.linear(values, ending.weight, ending.bias)
        return values.shape == expected.shape and torch.allclose(values, expected, 0, close)

    if (
        not expected.isfinite().all()
        or logits.shape != expected.shape
        or not torch.allclose(logits, expected, 0, close)
    ):
        return False, False
    with torch.no_grad():
        embeds = read is not None and leads_there(read.flatten(1))
        maps = features is not None and features.ndim == 4 and leads_there(features.mean((2, 3)))
    return embeds, maps


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
