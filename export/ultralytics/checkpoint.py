"""Reading Ultralytics' `.pt` files, which are pickles of whole networks, without running what they say.

`export.families.ultralytics` calls it. What a pickle may name is listed before anything of it is read:

- Layers: classes of `torch.nn.modules`, `ultralytics.nn.modules` and `ultralytics.nn.tasks` that are `nn.Module`s. They
  are made empty and filled with the file's attributes. The file cannot call them, so no constructor runs with its
  arguments (a YOLO's would read files and evaluate expressions).
- `getattr`, for the `forward` and `forward_fuse` of such a layer, and nothing else.
- What training left behind (losses, settings, paths, NumPy numbers, a classifier's transforms) becomes a placeholder
  without content. Nothing is imported for it.

All else is refused by name.
"""

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from torch import nn

from export.checkpoint import reason, unpickle, wanted
from export.ultralytics.library import import_library, version
from zoo.errors import ExportError

_LAYERS = ("torch.nn.modules.", "ultralytics.nn.modules.", "ultralytics.nn.tasks.")
_RENAMED = {  # layers that published files have under names that the library has no more
    "ultralytics.nn.modules.block.Silence": "torch.nn.modules.linear.Identity",  # YOLOv9e
    "ultralytics.nn.tasks.YOLOv10DetectionModel": "ultralytics.nn.tasks.DetectionModel",
}
_TRANSFORMS = "torchvision.transforms."
_LEFT_BEHIND = frozenset(
    {"numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "types.SimpleNamespace"}
    | {f"{module}.{system}Path" for module in ("pathlib", "pathlib._local") for system in ("Posix", "Windows")}
)
_METHODS = frozenset({"forward", "forward_fuse"})

Allowed = tuple[Callable[..., Any], str]
"""What the unpickler gets for a name."""


def read_model(path: Path) -> nn.Module:
    """Return the network of a checkpoint, float32, in eval mode.

    Raises:
        ExportError: `ultralytics` is not installed; or the file is no torch checkpoint, wants code that is not allowed
            (which is named), or holds no network.
    """
    import_library()
    names = wanted(path)
    known = (*_LAYERS, "ultralytics.", _TRANSFORMS)
    refused = [name for name in names if not name.startswith(known) and name not in _LEFT_BEHIND]
    refused = [name for name in refused if name != "builtins.getattr"]
    if refused:
        raise ExportError(
            f"{path}: it needs {', '.join(refused)}, which no checkpoint of Ultralytics needs, so it was not read. Get "
            "it from its publisher, or save the network again without them"
        )
    try:
        checkpoint = unpickle(path, [entry for name in names for entry in _allowed(name)])
        model = (checkpoint.get("ema") or checkpoint.get("model")) if isinstance(checkpoint, dict) else checkpoint
        if isinstance(model, nn.Module):
            return model.float().eval()
    except Exception as error:  # the unpickler, and layers that were not filled, raise errors of many kinds
        raise ExportError(f"{path}: not a checkpoint that ultralytics {version()} can read: {reason(error)}") from error
    raise ExportError(f"{path}: expected a network under `ema` or `model`, but it holds a {type(model).__name__}")


def _allowed(name: str) -> Iterator[Allowed]:
    if name == "builtins.getattr":
        yield _method, name
    elif name.startswith(_LAYERS):
        module, _, attribute = _RENAMED.get(name, name).rpartition(".")
        layer = getattr(importlib.import_module(module), attribute, None)
        if not isinstance(layer, type) or not issubclass(layer, nn.Module):
            raise UnpicklingError(f"there is no layer {name}")
        yield _Shell(attribute, (), {"layer": layer, "__new__": lambda _: layer.__new__(layer)}), name
        # The unpickler fills only objects whose class it knows. Every name in a pickle has a dot: none can be this one.
        yield layer, name.replace(".", "/")
    else:
        yield _Placeholder, name


class _Shell(type):
    """Stands for a class of layers: it makes them empty, as unpickling does, and cannot be called."""

    layer: type[nn.Module]

    def __call__(cls, *_: object) -> None:
        raise UnpicklingError(f"it calls {cls.layer.__module__}.{cls.__name__}, and layers are only filled here")


class _Placeholder:
    """Stands for whatever training left in the file."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


def _method(owner: object, name: str) -> object:
    """A layer's method, or the function of a class: how networks with fused layers, or older segmenters, were saved.

    What is named of a placeholder becomes one, such as how a classifier's transforms interpolate.
    """
    if isinstance(owner, nn.Module) and name in _METHODS:
        return getattr(type(owner), name).__get__(owner)
    if isinstance(owner, _Shell) and name in _METHODS:
        return getattr(owner.layer, name)
    if owner is _Placeholder:  # a member of an enumeration
        return _Placeholder()
    raise UnpicklingError(f"it needs {name!r} of a {type(owner).__name__}")
