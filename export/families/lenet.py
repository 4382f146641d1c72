"""LeNet-5, the digit classifier of LeCun et al. (1998), as one would write it today.

`export.training.lenet5` trained it. A card of this family has the source `weights` and no options.
"""

from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812, the name that everyone knows it by
from torch import Tensor, nn

from export.checkpoint import load, read_state_dict
from export.network import Network
from zoo.errors import ExportError
from zoo.model_card import ModelCard, Normalise

SIDE = 28
CLASSES = 10


class LeNet5(nn.Module):
    """LeNet-5: float32 [N, 1, 28, 28], grey in 0..1, the digit bright -> `logits` float32 [N, 10].

    The layers are those of the paper, C1 to F6 and the output, and so are the sizes of their feature maps. Practice
    since then has changed tanh to ReLU, averages to max-pooling, radial basis functions to a plain output layer; it
    connects C3 to all of S2 and trains with dropout. C1 and C3 have 16 and 32 feature maps instead of 6 and 16.

    Source: Gradient-based learning applied to document recognition, Proceedings of the IEEE 86(11), 1998.
    """

    def __init__(self) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(1, 16, 5, padding=2)
        self.c3 = nn.Conv2d(16, 32, 5)
        self.c5 = nn.Conv2d(32, 120, 5)
        self.f6 = nn.Linear(120, 84)
        self.output = nn.Linear(84, CLASSES)
        self.dropout = nn.Dropout(0.25)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        s2 = F.relu(F.max_pool2d(self.c1(x), 2))
        s4 = F.relu(F.max_pool2d(self.c3(s2), 2))
        c5 = F.relu(self.c5(self.dropout(s4))).flatten(1)
        f6 = F.relu(self.f6(self.dropout(c5)))
        return {"logits": self.output(f6)}


def build(card: ModelCard, files: dict[str, Path]) -> Network:
    """Load `files["weights"]`, a state dict, into LeNet-5.

    Raises:
        ExportError: the card does not fit LeNet-5, or the file is no checkpoint of it.
    """
    height, width = card.recipe.height, card.recipe.width
    if (height, width) != (SIDE, SIDE) or card.normalise != Normalise(channels="grey") or card.options:
        raise ExportError(
            f"{card.name}: LeNet-5 takes {SIDE} x {SIDE} grey pixels in 0..1 and no options, but the card's recipe is "
            f"{height} x {width}, its `normalise` {card.normalise}, its `options` {card.options}"
        )
    module = LeNet5()
    load(module, read_state_dict(files["weights"]), files["weights"], "LeNet-5")
    return Network(module, f"torch {torch.__version__}")
