"""A regression of a steering angle from the view ahead. `export.training.steering` trained it, on rendered roads only.

A card of this family has `task = "tensors"` and a recipe, the source `weights` and no options.
"""

from pathlib import Path

import torch.nn.functional as F  # noqa: N812, the name that everyone knows it by
from torch import Tensor, nn

from export.checkpoint import load, read_state_dict
from export.network import TensorNetwork
from export.training.roads import roads
from zoo.model_card import TensorCard

_ROWS, _SEED = 6, 3  # of the rendered roads for the golden answers


class SteeringNetwork(nn.Module):
    """float32 [N, 3, 64, 160] RGB in 0..1 -> `angle` float32 [N, 1] of the front wheels, in degrees, right is positive.

    Source: End to end learning for self-driving cars, Bojarski et al., 2016, smaller.
    """

    def __init__(self) -> None:
        super().__init__()
        sizes = ((3, 12, 5, 2), (12, 18, 5, 2), (18, 24, 5, 2), (24, 32, 3, 2))
        self.convolutions = nn.ModuleList(
            [nn.Conv2d(a, b, kernel, stride, kernel // 2) for a, b, kernel, stride in sizes]
        )
        self.hidden = nn.Linear(32 * 4 * 10, 50)
        self.output = nn.Linear(50, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x = images - 0.5
        for convolution in self.convolutions:
            x = F.relu(convolution(x))
        return {"angle": self.output(F.relu(self.hidden(x.flatten(1))))}


def build_tensors(_: TensorCard, files: dict[str, Path]) -> TensorNetwork:
    """Load `files["weights"]`, a state dict, into the network.

    Raises:
        ExportError: the file is no checkpoint of it.
    """
    module = SteeringNetwork()
    load(module, read_state_dict(files["weights"]), files["weights"], "the steering network")
    return TensorNetwork(module, {"images": roads(_ROWS, _SEED)[0]})
