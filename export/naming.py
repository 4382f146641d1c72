"""From a name to its card: a card of the zoo, a card's file, or a model that a library knows by that name.

`zooserve export` and whoever else needs a card before its export calls `find_card`.
"""

import difflib
import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from zoo import catalog
from zoo.card import ModelCard, read_model_card
from zoo.errors import ExportError, UnknownModelError

BY_NAME = {"torchvision": "export", "timm": "timm", "libreyolo": "libreyolo"}
"""The families that write cards by name, in the order in which they are asked, each with the extra that brings its
library."""
_CONVERTERS = ("torch", "torchvision", "onnx", "onnxscript")


def find_card(name: str) -> ModelCard:
    """Return the card called `name`, the card in the file `name` (`.toml`), or write one where a library knows it.

    Raises:
        UnknownModelError: none of them; the message names close ones.
        CardError: the card is not valid.
        ExportError: a library knows it, but it cannot be served, with the reason.
    """
    if name.endswith(".toml"):
        return read_model_card(Path(name))
    try:
        return catalog.find(name)
    except UnknownModelError as error:
        need_torch()
        known: list[str] = []
        for family in _families():
            card: ModelCard | None = family.card_for(name)
            if card is not None:
                return card
            known += family.names()
        close = difflib.get_close_matches(name, known)
        hint = f" Near: {', '.join(close)}." if close else ""
        absent = [f"`{extra}`" for library, extra in BY_NAME.items() if not _installed(library)]
        more = f" More names come with the extras {', '.join(absent)}." if absent else ""
        asked = ", ".join(library for library in BY_NAME if _installed(library))
        raise UnknownModelError(f"{error}; nor do these libraries know it: {asked}.{hint}{more}") from None


def need_torch() -> None:
    """Raise `ExportError` where the libraries that convert are not installed."""
    missing = [name for name in _CONVERTERS if not _installed(name)]
    if missing:
        raise ExportError(f"this needs {', '.join(missing)}, not installed: install zooserve's extra `export`")


def _families() -> Iterator[ModuleType]:
    for library in BY_NAME:
        if _installed(library):
            yield importlib.import_module(f"export.families.{library}")


def _installed(library: str) -> bool:
    return importlib.util.find_spec(library) is not None
