"""A card and its files -> the network that its family reads. Called by `export.pipeline` and `export.tensors`."""

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

from export import families
from export.network import Network, TensorNetwork
from export.options import check_options
from zoo.errors import ExportError
from zoo.model_card import AnyCard, ModelCard, TensorCard


def build(card: ModelCard, files: dict[str, Path]) -> Network:
    """Let the card's family build its network for images.

    Raises:
        ExportError: there is no such family, or the files do not fit it.
    """
    network: Network = _family(card, "build").build(card, files)
    return network


def build_tensors(card: TensorCard, files: dict[str, Path]) -> TensorNetwork:
    """Let the card's family build its network for tensors; raises as `build` does."""
    network: TensorNetwork = _family(card, "build_tensors").build_tensors(card, files)
    return network


def _family(card: AnyCard, function: str) -> ModuleType:
    known = sorted(module.name for module in pkgutil.iter_modules(families.__path__))
    if card.family not in known:
        raise ExportError(f"{card.name}: there is no family {card.family!r}, expected one of {', '.join(known)}")
    family = importlib.import_module(f"export.families.{card.family}")
    if not hasattr(family, function):
        raise ExportError(f"{card.name}: the family {card.family!r} has no models with `task = {card.task!r}`")
    check_options(card, family)
    return family
