"""Reading a torch checkpoint and putting it into its network, strictly. Called by families whose files are torch's."""

import pickletools
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from export.kinds import advice, kind_of
from zoo.errors import ExportError

_ALLOWED = threading.Lock()
_WRAPPERS = ("_orig_mod.", "module.", "_orig_mod.")  # torch.compile's, around DataParallel's or within it


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict, or the one inside a training checkpoint (`state_dict`, `model`). No code of it is run.

    Where neither is there, the only one that there is is taken, by whatever name. Prefixes that `DataParallel` and
    `torch.compile` give to all names are dropped. Files that end in `.safetensors` are read as such.

    Raises:
        ExportError: the file is no torch checkpoint, or holds more than tensors.
    """
    if not path.stat().st_size:
        raise ExportError(f"{path} is empty: copy it, or export it, again")
    if path.suffix.lower() == ".safetensors":
        return _unwrapped(_read_safetensors(path))
    try:
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # of a pickle's age; reading it says more
            state = unpickle(path)
    except Exception as error:  # the unpickler raises errors of many kinds
        raise ExportError(
            f"{path}: torch cannot read it without running code of its own: {_why(path, error)}"
        ) from error
    outer = ""
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state, outer = state[key], f"{outer}[{key!r}]"
    if isinstance(state, dict) and not _is_state_dict(state):
        held = [key for key, value in state.items() if value and _is_state_dict(value)]
        if len(held) != 1:
            raise ExportError(_several(path, state, held, outer))
        state = state[held[0]]
    if not isinstance(state, dict):
        raise ExportError(f"{path}: expected a state dict, names to tensors, but it holds a {type(state).__name__}")
    return _unwrapped(state)


def _unwrapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Drop the prefixes that wrappers of a network gave to all of its names."""
    for prefix in _WRAPPERS:
        if state and all(key.startswith(prefix) for key in state):
            consume_prefix_in_state_dict_if_present(state, prefix)
    return state


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())


def _several(path: Path, state: dict[Any, Any], held: Sequence[Any], outer: str) -> str:
    """Say that what a checkpoint has at the keys `outer` is no state dict, or several."""
    if not held:
        found = shorten(", ".join(map(repr, state)), 300, placeholder=" ...") or "nothing"
        return (
            f"{path}: expected a state dict, names to tensors, but it holds {found}: save the network's `state_dict()`"
        )
    return (
        f'{path}: holds the state dicts {", ".join(map(repr, held))}: save the one that is meant, `python -c "import '
        f"torch; torch.save(torch.load('{path}', map_location='cpu'){outer}[{held[0]!r}], 'weights.pth')\"`"
    )


def unpickle(path: Path, allowed: Sequence[tuple[Callable[..., Any], str]] = ()) -> Any:
    """Return what a checkpoint of torch's holds, on the CPU. It may name tensors' classes and `allowed`, nothing else.

    `allowed` has what the unpickler gets, and for which name. Raises what `torch.load` raises.
    """
    with _only(allowed):
        return torch.load(path, map_location="cpu", weights_only=True)


@contextmanager
def _only(allowed: Sequence[tuple[Callable[..., Any], str]] = ()) -> Iterator[None]:
    """Let torch's unpickler know `allowed` and nothing that other libraries have registered.

    Its list is the process's, and what Ultralytics adds to it stays there: with it, a file would be filled into real
    classes here, or be taken for one that names none.
    """
    registry = torch.serialization
    with _ALLOWED:
        others = registry.get_safe_globals()
        registry.clear_safe_globals()
        registry.add_safe_globals(list(allowed))
        try:
            yield
        finally:
            registry.clear_safe_globals()
            registry.add_safe_globals(others)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file  # noqa: PLC0415 - it comes with the libraries whose files these are

        return load_file(path)
    except ImportError as error:
        raise ExportError(f"{path}: this needs safetensors, not installed: pip install safetensors") from error
    except Exception as error:  # its error is made in Rust, and has no base but this
        raise ExportError(f"{path} is no safetensors file: {error}") from error


def wanted(path: Path) -> list[str]:
    """Return the classes and functions that a checkpoint's pickle names beyond those of tensors, sorted.

    Nothing of the file is run. It is empty for files that are no pickles.
    """
    try:
        with _only():
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # not a checkpoint of torch's
        return _named_by_pickle(path)


def _named_by_pickle(path: Path) -> list[str]:
    """The same for a plain pickle of any protocol; empty where it is none."""
    names, strings = set(), [""]
    try:
        with path.open("rb") as file:
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name in {"GLOBAL", "INST"}:
                    names.add(str(argument).replace(" ", "."))
                elif opcode.name == "STACK_GLOBAL":
                    names.add(".".join(strings[-2:]))
                elif isinstance(argument, str):
                    strings.append(argument)
    except Exception:  # it ends, or is no pickle
        return []
    return sorted(names)


def _why(path: Path, error: Exception) -> str:
    if kind_of(path) != "torch" and (said := advice(path)):
        return said
    names = wanted(path)
    if not names:
        return reason(error)
    wants = f"it needs {shorten(', '.join(names), 300, placeholder=' ...')}"
    if any(name.startswith("ultralytics.") for name in names):
        return f"{wants}. This is a network of Ultralytics; the family `ultralytics` reads such files"
    return f"{wants}. Save the network's `state_dict()` instead"


def reason(error: Exception) -> str:
    """Say shortly why `torch.load` failed. The unpickler's message is in the context of torch's exception."""
    cause = error.__context__ or error
    return shorten(str(cause) or type(cause).__name__, 300, placeholder=" ...")


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
        raise misfit(path, architecture, error) from error
    module.eval()


def misfit(path: Path, architecture: str, error: Exception) -> ExportError:
    """Say that a checkpoint is not one of `architecture`, with the first keys that torch names in its error."""
    faults = [shorten(line, 200, placeholder=" ...") for line in str(error).splitlines()[1:4]] or [str(error)]
    said = f"{path} is no checkpoint of {architecture}. {' '.join(faults)}"
    if all(line.startswith("size mismatch") for line in faults):
        said += " The network has a class for each of the card's labels: has the checkpoint, too?"
    return ExportError(said)
