"""A recurrent network that predicts the next character of English text. `export.training.char_lstm` trained it.

A card of this family takes tensors, has the source `weights` and no options.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from export.checkpoint import load, read_state_dict
from export.network import TensorNetwork
from zoo.model_card import TensorCard

CODES = 128
"""Characters are codes of ASCII."""
HIDDEN = 208
_EMBEDDING = 32
_UNKNOWN = ord(" ")  # what a code beyond ASCII is read as
_TEXTS = ("Now is the winter of our", "To be, or not to be: tha", "Friends, Romans, country")


class CharLstm(nn.Module):
    """An LSTM over characters: codes and state in, the next character's probabilities and the new state out.

    Source: Long short-term memory, Neural Computation 9(8), 1997; on characters: Generating sequences with recurrent
    neural networks, Graves, 2013.
    """

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CODES, _EMBEDDING)
        self.lstm = nn.LSTM(_EMBEDDING, HIDDEN, batch_first=True)
        self.output = nn.Linear(HIDDEN, CODES)

    def logits(self, characters: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits [N, T, 128] for what follows each character, and the state [N, 2, 208] after the last."""
        hidden, cell = (part.contiguous() for part in state.transpose(0, 1).chunk(2))
        codes = torch.where(characters < CODES, characters, _UNKNOWN).long()
        outputs, (hidden, cell) = self.lstm(self.embedding(codes), (hidden, cell))
        return self.output(outputs), torch.cat([hidden, cell]).transpose(0, 1)

    def forward(self, characters: Tensor, state: Tensor) -> dict[str, Tensor]:
        """Read on in a text.

        Args:
            characters: uint8 [N, T], codes of ASCII; others are read as spaces.
            state: float32 [N, 2, 208]: `next_state` of the characters before; zeros where a text begins.

        Returns:
            `probabilities` float32 [N, 128] of the next character by code, and `next_state` float32 [N, 2, 208].
        """
        logits, state = self.logits(characters, state)
        return {"probabilities": logits[:, -1].softmax(-1), "next_state": state}


def encode(text: str) -> npt.NDArray[np.uint8]:
    """Return the codes of a text, uint8 [T]; a character beyond ASCII becomes a question mark."""
    return np.frombuffer(text.encode("ascii", "replace"), np.uint8)


def build_tensors(_: TensorCard, files: dict[str, Path]) -> TensorNetwork:
    """Load `files["weights"]`, a state dict, into the network.

    Raises:
        ExportError: the file is no checkpoint of it.
    """
    module = CharLstm()
    load(module, read_state_dict(files["weights"]), files["weights"], "the character LSTM")
    characters = np.stack([encode(text) for text in _TEXTS])
    with torch.inference_mode():  # texts that went on for a while have a state
        states = module.logits(torch.from_numpy(characters), torch.zeros(len(_TEXTS), 2, HIDDEN))[1].numpy().copy()
    states[0] = 0  # and one that begins
    return TensorNetwork(module, {"characters": characters, "state": states}, {"characters": {1: "length"}})
