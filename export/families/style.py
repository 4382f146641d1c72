"""Networks that paint an image in one style. `export.training.style` trained them.

A card of this family has `task = "tensors"` and a recipe, the source `weights` and no options.
"""

from pathlib import Path

import torch.nn.functional as F  # noqa: N812, the name that everyone knows it by
from torch import Tensor, nn

from export.checkpoint import load, read_state_dict
from export.network import TensorNetwork
from zoo.model_card import TensorCard


class _Convolution(nn.Module):
    """Reflection padding, a convolution, instance normalisation; before it, perhaps, the image is enlarged twofold."""

    def __init__(self, before: int, after: int, kernel: int, stride: int = 1, *, enlarge: bool = False) -> None:
        super().__init__()
        self._enlarge = enlarge
        self.pad = nn.ReflectionPad2d(kernel // 2)
        self.convolution = nn.Conv2d(before, after, kernel, stride, bias=False)
        self.norm = nn.InstanceNorm2d(after, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        if self._enlarge:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        found: Tensor = self.norm(self.convolution(self.pad(x)))
        return found


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = _Convolution(channels, channels, 3), _Convolution(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = x + self.second(F.relu(self.first(x)))
        return found


class StyleNetwork(nn.Module):
    """float32 [N, 3, H, W] RGB in 0..1, sides multiples of 4 -> `image` float32 [N, 3, H, W] RGB in 0..255.

    Source: Perceptual losses for real-time style transfer and super-resolution, Johnson et al., 2016, narrower; it
    enlarges by nearest neighbours before convolutions (Odena et al., Deconvolution and checkerboard artifacts, 2016).
    """

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([_Convolution(3, 16, 9), _Convolution(16, 32, 3, 2), _Convolution(32, 48, 3, 2)])
        self.inner = nn.ModuleList([_Residual(48) for _ in range(3)])
        self.up = nn.ModuleList([_Convolution(48, 32, 3, enlarge=True), _Convolution(32, 16, 3, enlarge=True)])
        self.output = nn.Sequential(nn.ReflectionPad2d(4), nn.Conv2d(16, 3, 9))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x = images
        for layer in self.down:
            x = F.relu(layer(x))
        for layer in self.inner:
            x = layer(x)
        for layer in self.up:
            x = F.relu(layer(x))
        return {"image": self.output(x).sigmoid() * 255}


def build_tensors(_: TensorCard, files: dict[str, Path]) -> TensorNetwork:
    """Load `files["weights"]`, a state dict, into the network.

    Raises:
        ExportError: the file is no checkpoint of it.
    """
    module = StyleNetwork()
    load(module, read_state_dict(files["weights"]), files["weights"], "the style network")
    return TensorNetwork(module, {})
