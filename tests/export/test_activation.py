"""Class activation maps and embeddings: who has them, and that the logits follow from them."""

import pytest
import torch
from torch import nn
from torchvision.models import get_model

from export.activation import with_activation

SIDE = 96


class Sums(nn.Module):
    """A convolution, then what the test says, then a linear layer."""

    def __init__(self, between) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3, stride=8)
        self.between = between
        self.linear = nn.LazyLinear(5)

    def forward(self, x):
        return self.linear(self.between(self.convolution(x)))


class ByShape(nn.Module):
    """Asks for its input's size on its way, which a trace cannot follow."""

    def forward(self, x):
        return x.mean((2, 3)) if x.shape[2] > 1 else x.flatten(1)


def answers(network):
    torch.manual_seed(0)
    network = network.eval()
    network(torch.zeros(1, 3, SIDE, SIDE))
    x = torch.randn(3, 3, SIDE, SIDE)
    with torch.no_grad():
        return network(x), with_activation(network, SIDE, SIDE)(x)


@pytest.mark.parametrize(
    ("name", "settings", "size"),
    [
        ("resnet18", {}, (3, 3)),
        ("mobilenet_v2", {}, (3, 3)),  # pooled by a function
        ("efficientnet_b0", {}, (3, 3)),
        ("mnasnet0_5", {}, (3, 3)),  # by a tensor's method
        ("swin_t", {}, (3, 3)),  # channels come last within
        ("squeezenet1_1", {}, (5, 5)),  # a map per class, no layer after it
        ("mobilenet_v3_small", {}, None),  # two layers after the pooling
        ("convnext_tiny", {}, None),  # a norm after it
        ("alexnet", {}, None),  # pooled to more than one pixel
        ("vit_b_32", {"image_size": SIDE}, None),  # a token for the class, no pooling
    ],
)
def test_torchvisions(name, settings, size):
    network = get_model(name, weights=None, **settings)
    expected, got = answers(network)
    torch.testing.assert_close(got["logits"], expected)
    *_, layer = (part for part in network.modules() if isinstance(part, nn.Linear | nn.Conv2d))
    assert ("embedding" in got) is (name != "squeezenet1_1")
    if "embedding" in got:
        torch.testing.assert_close(layer(got["embedding"]), expected)
    if size is None:
        assert "activation" not in got
        return
    assert got["activation"].shape == (3, *size)
    assert got["activation"].std() > 0
    top = expected.argmax(1)
    bias = 0 if isinstance(layer, nn.Conv2d) else layer.bias[top]
    torch.testing.assert_close(got["activation"].mean((1, 2)) + bias, expected.amax(1))


@pytest.mark.parametrize(
    ("between", "has"),  # every one of them has an embedding, but the last
    [
        (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), True),
        (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Dropout(), nn.Flatten(), nn.Identity()), True),
        (nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()), False),
        (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.ReLU()), False),
        (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(8)), False),
        (nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten()), False),
        (nn.Flatten(), False),
        (ByShape(), False),
    ],
)
def test_only_the_true_ending_is_believed(between, has):
    expected, got = answers(Sums(between))
    torch.testing.assert_close(got["logits"], expected)
    assert ("activation" in got) is has
    assert ("embedding" in got) is not isinstance(between, ByShape)


def test_what_was_trained_keeps_its_names_and_is_there_once():
    network = get_model("resnet18", weights=None).eval()
    built = with_activation(network, SIDE, SIDE)
    state = built.network.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert sum(p.numel() for p in built.parameters()) == sum(p.numel() for p in network.parameters())
