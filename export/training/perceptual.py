"""What a classifier sees in images: features of SqueezeNet 1.1 with its real weights, and losses on them.

Source: A neural algorithm of artistic style, Gatys et al., 2015; on features of SqueezeNet instead of VGG.
"""

import torch
import torch.nn.functional as F  # noqa: N812, the name that everyone knows it by
from torch import Tensor

from export.caffe.net import read_net
from export.families.caffe import steps_of
from export.layers import LayerNetwork
from zoo import catalog
from zoo.model_card import require_images
from zoo.sources import fetch_all

_STYLE = ("conv1", "fire3/concat", "fire5/concat", "fire7/concat")
_CONTENT = 2  # the index of the layer in which a painted image must resemble the photo


class Perception:
    """The features of images at a few depths of the zoo's `squeezenet1_1_caffe`."""

    def __init__(self) -> None:
        card = require_images(catalog.find("squeezenet1_1_caffe"))
        net = read_net(fetch_all(card.sources)["weights"], None, _STYLE[-1])
        self._network = LayerNetwork(net.image, steps_of(net), _STYLE).eval().requires_grad_(requires_grad=False)
        self._mean = torch.tensor(card.normalise.mean).view(1, 3, 1, 1)

    def features(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return features [N, C, h, w] at each depth, for images float32 [N, 3, H, W] RGB in 0..255."""
        return self._network.run((images - self._mean).flip(1))

    @staticmethod
    def grams(features: tuple[Tensor, ...]) -> list[Tensor]:
        """Return how strongly pairs of channels occur together, [N, C, C], at each depth: the style of an image."""
        flat = [one.flatten(2) for one in features]
        return [one @ one.transpose(1, 2) / one.shape[2] for one in flat]

    @staticmethod
    def content_loss(features: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> Tensor:
        """Return how far images are from showing the same, as a share of what features of the photo measure."""
        return F.mse_loss(features[_CONTENT], wanted[_CONTENT]) / wanted[_CONTENT].square().mean()

    @staticmethod
    def style_loss(grams: list[Tensor], wanted: list[Tensor]) -> Tensor:
        """Return how far images are from a style [1, C, C] by depth, as shares of what it measures, averaged."""
        pairs = zip(grams, wanted, strict=True)
        shares = [(one - style).square().mean() / style.square().mean() for one, style in pairs]
        return torch.stack(shares).mean()
