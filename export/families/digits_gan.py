"""A generator of handwritten digits. `export.training.digits_gan` trained it, against a discriminator.

A card of this family takes tensors, has the source `weights` and no options.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from export.checkpoint import load, read_state_dict
from export.network import TensorNetwork
from zoo.model_card import TensorCard

LATENT = 32
_ROWS = 8


class DigitsGenerator(nn.Module):
    """A latent vector -> an image of a digit, by transposed convolutions.

    Source: Unsupervised representation learning with deep convolutional generative adversarial networks, Radford et
    al., 2015, smaller.
    """

    def __init__(self) -> None:
        super().__init__()
        self.entry = nn.Sequential(nn.Linear(LATENT, 64 * 7 * 7, bias=False), nn.Unflatten(1, (64, 7, 7)))
        self.layers = nn.Sequential(
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.ConvTranspose2d(64, 32, 4, 2, 1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 1, 4, 2, 1),
            nn.Sigmoid(),
        )

    def pixels(self, latent: Tensor) -> Tensor:
        """Return images float32 [N, 1, 28, 28], grey in 0..1, for latent vectors float32 [N, 32]."""
        images: Tensor = self.layers(self.entry(latent))
        return images

    def forward(self, latent: Tensor) -> dict[str, Tensor]:
        """Return `image` uint8 [N, 28, 28, 1], grey, for `latent` float32 [N, 32], normally distributed."""
        return {"image": (self.pixels(latent) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)}


def build_tensors(_: TensorCard, files: dict[str, Path]) -> TensorNetwork:
    """Load `files["weights"]`, a state dict, into the generator.

    Raises:
        ExportError: the file is no checkpoint of it.
    """
    module = DigitsGenerator()
    load(module, read_state_dict(files["weights"]), files["weights"], "the generator of digits")
    latent = torch.randn(_ROWS, LATENT, generator=torch.Generator().manual_seed(0))
    return TensorNetwork(module, {"latent": latent.numpy()})
