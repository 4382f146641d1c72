"""Reading a torch checkpoint and putting it into its network, strictly. Called by families whose files are torch's."""

from pathlib import Path
from textwrap import shorten

import torch
from torch import Tensor, nn

from zoo.errors import ExportError


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict, or the one inside a training checkpoint (`state_dict`, `model`). No code of it is run.

    Raises:
        ExportError: the file is no torch checkpoint, or holds more than tensors.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises errors of many kinds
        reason = shorten(str(error), 300, placeholder=" ...")
        raise ExportError(f"{path}: torch cannot read it without running code of its own: {reason}") from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ExportError(f"{path}: expected a state dict, names to tensors, but it holds a {type(state).__name__}")
    return state


def load(module: nn.Module, state: dict[str, Tensor], path: Path, architecture: str) -> None:
    """Load a state dict strictly, in place, and set the module to eval mode.

    `state` is to be what `read_state_dict` gave: torch keeps the layers' versions beside the tensors, and older
    checkpoints are understood by them.

    Raises:
        ExportError: naming the first keys that are missing, unexpected or of another shape.
    """
    try:
        module.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        faults = [shorten(line, 200, placeholder=" ...") for line in str(error).splitlines()[1:4]] or [str(error)]
        raise ExportError(f"{path} is no checkpoint of {architecture}. {' '.join(faults)}") from error
    module.eval()
