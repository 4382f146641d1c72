"""The network before conversion, behind the same pixels and head as the served graph: what ONNX must answer too.

`export.pipeline` makes one; `export.parity` and `export.golden` ask it.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from export.heads import OBJECTS, Head, Pixels
from export.network import Network
from zoo.errors import ExportError
from zoo.model_card import ModelCard

Images = npt.NDArray[np.uint8]
Outputs = dict[str, npt.NDArray[Any]]


class Reference:
    """Answers in torch, or in the checkpoint's original runtime where the network brings one."""

    def __init__(self, card: ModelCard, network: Network, classes: int) -> None:
        used = (card.nms or network.nms_options, card.evaluation or network.evaluation)
        limit = max(one.candidates for one in used) if network.nms else OBJECTS
        self.head = Head(card, classes, limit=limit).eval()
        self._pixels = Pixels(card.normalise).eval()
        self._network = network

    @torch.no_grad()
    def raw(self, images: Images) -> dict[str, Tensor]:
        """Return the network's raw answers (see `export.network.Network`) to uint8 images [N, H, W, 3]."""
        x: Tensor = self._pixels(torch.from_numpy(images))
        if self._network.reference is not None:
            answers = self._network.reference(x.numpy())
            return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in answers.items()}
        if not isinstance(self._network.module, nn.Module):
            raise ExportError("a family that hands over an ONNX model must bring the `reference` that runs it")
        return dict(self._network.module.eval()(x))

    @torch.no_grad()
    def __call__(self, images: Images) -> Outputs:
        """Return the served outputs, by name, to uint8 images [N, H, W, 3].

        Raises:
            ExportError: the raw answers do not fit the card's task or labels.
        """
        return self.answers(images)[0]

    @torch.no_grad()
    def answers(self, images: Images) -> tuple[Outputs, Outputs]:
        """Return the served outputs, and the network's raw answers that they were made of; raises as a call does."""
        raw = self.raw(images)
        outputs = {name: value.numpy() for name, value in self.head(raw).items()}
        return outputs, {name: value.numpy() for name, value in raw.items()}
