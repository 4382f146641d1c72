"""Which of the sources here decide how a model comes out, as one hash. Needs no torch. Called by `provenance`.

They are found by following the imports from where a conversion begins, so that no list has to be kept, and a change in
one family does not convert the models of the others again.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from zoo.model_card import AnyCard, TensorCard

_ROOT = Path(__file__).parent.parent
_RECIPE = "zoo.recipe"  # the one part of `zoo` that decides, too: how a photo becomes the graph's input
_TENSORS = "export.tensors"  # exports graphs that take tensors; `export.pipeline` only calls it


def code_of(card: AnyCard) -> str:
    """Return the sha256 of all sources that take part in converting a model."""
    if isinstance(card, TensorCard):
        return _hash((_TENSORS,) if card.family == "tensors" else (_TENSORS, f"export.families.{card.family}"))
    return _hash(("export.pipeline", f"export.families.{card.family}"))


def code_of_variants() -> str:
    """Return the sha256 of all sources that take part in making variants of lower precision."""
    return _hash(("export.variant",))


@cache
def _hash(begin: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for module in sorted(_reached(begin)):
        path = _file(module)
        for file in (path, *sorted(path.parent.glob("*.binpb"))) if path else ():  # with the schemas that it reads
            digest.update(f"{module} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _reached(begin: Iterable[str]) -> set[str]:
    """The modules that are imported from some, directly or not, and those themselves."""
    waiting, found = list(begin), set(begin)
    while waiting:
        for module in _imported(waiting.pop()):
            if module not in found and module != _TENSORS:
                found.add(module)
                waiting.append(module)
    return found


@cache
def _imported(module: str) -> frozenset[str]:
    """The modules of `export` that a module imports, anywhere in it; of `zoo` only what decides."""
    path = _file(module)
    if path is None or not _is_ours(module):
        return frozenset()
    named = _names(ast.parse(path.read_bytes()))
    return frozenset(name for name in named if name == _RECIPE or (_is_ours(name) and _file(name)))


def _is_ours(module: str) -> bool:
    return module == "export" or module.startswith("export.")


def _names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)  # it may be a module, too


@cache
def _file(module: str) -> Path | None:
    path = _ROOT.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)
