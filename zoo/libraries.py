"""Libraries that know models by name (torchvision, timm, ...). Their models need no card.

Each is an entry point of the group `zooserve.cards`: a module with `names() -> list[str]` and `card_for(name: str) ->
ModelCard | None`. If `card_for` needs the network, the module also has `describe(name: str) -> Description | None`,
which does not. These modules import their library, which takes seconds and may not be installed. So they are imported
only when a name is looked up; `zooserve list` reads their docstrings without importing them. `zoo.commands` and
`export.command` call this.
"""

import ast
import difflib
import importlib.util
import shlex
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Protocol, cast

from zoo import catalog
from zoo.card import Licence
from zoo.errors import UnknownModelError, ZooError
from zoo.extras import extra_of, install
from zoo.model_card import AnyCard, ModelCard, read_model_card
from zoo.pipeline_card import PipelineCard, zoo_pipelines
from zoo.sources import address
from zoo.sources.pins import first_download

_GROUP = "zooserve.cards"


class Cards(Protocol):
    """The interface of a library's module."""

    def names(self) -> list[str]: ...
    def card_for(self, name: str) -> ModelCard | None: ...


@dataclass(frozen=True)
class Description:
    """What is known of a model without the network.

    Attributes:
        sources: addresses of its files.
        size: of its files in bytes, if known.
        mirrors: further addresses of its files.
        first_downloads: for files of which the publisher gives no hash: that of the first download, "" before it.
    """

    task: str
    title: str
    family: str
    licence: Licence
    sources: dict[str, str]
    size: int | None = None
    mirrors: dict[str, tuple[str, ...]] = field(default_factory=dict)
    first_downloads: dict[str, str] = field(default_factory=dict)


def described(card: AnyCard) -> Description:
    """Return the description of a model that has a card."""
    sizes = [source.size for source in card.sources.values()]
    return Description(
        card.task,
        card.title,
        card.family,
        card.licence,
        {name: address(source) for name, source in card.sources.items()},
        sum(size or 0 for size in sizes) if all(sizes) else None,
        {name: tuple(map(address, source.mirrors)) for name, source in card.sources.items() if source.mirrors},
        {name: sha for name, source in card.sources.items() if (sha := first_download(source)) is not None},
    )


def describe(module: Cards, name: str) -> Description | None:
    """Describe a model of a library, without the network if the library can; None if it has no such model.

    Raises:
        ZooError: the library has the model, but it cannot be served; or the network is needed and not available.
    """
    if offline := getattr(module, "describe", None):
        return cast(Description | None, offline(name))
    card = module.card_for(name)
    return described(card) if card else None


@dataclass(frozen=True)
class Library:
    """A library, described without importing it.

    Attributes:
        summary: the first sentence of its module's docstring.
        extra: of zooserve, which installs the library.
        missing: those of its imported packages that are not installed.
    """

    name: str
    summary: str
    extra: str
    missing: tuple[str, ...]
    entry: EntryPoint

    def load(self) -> Cards:
        """Import the library's module.

        Raises:
            ZooError: the library is not installed, or not in a suitable version.
        """
        if self.missing:
            raise ZooError(f"{self.name} needs {', '.join(self.missing)}, not installed: {install(self.extra)}")
        try:
            return cast(Cards, self.entry.load())
        except ImportError as error:
            raise ZooError(f"{self.name} is installed, but cannot be imported: {error}") from error


def libraries() -> tuple[Library, ...]:
    """Return all libraries in the order in which they are searched for a name: first those that `export` installs."""
    found = [_library(entry) for entry in entry_points(group=_GROUP)]
    return tuple(sorted(found, key=lambda library: (library.extra != "export", library.name)))


def library(name: str) -> Library:
    """Return the library called `name`.

    Raises:
        UnknownModelError: there is none.
    """
    known = {library.name: library for library in libraries()}
    if name not in known:
        raise UnknownModelError(f"no library {name!r} knows models by name; there are {', '.join(known)}")
    return known[name]


def find_card(name: str) -> AnyCard:
    """Return the card called `name`, the card in the file `name` (`.toml`), or the one that a library makes for it.

    Raises:
        UnknownModelError: there is none; the message has similar names.
        CardError: the card is not valid.
        ExportError: a library has the model, but it cannot be served, with the reason.
    """
    if name.endswith(".toml"):
        return read_model_card(Path(name))
    try:
        return catalog.find(name)
    except UnknownModelError as error:
        if advice := _instead(name):
            raise UnknownModelError(advice) from None
        known: list[str] = []
        asked: list[str] = []
        faults: list[str] = []
        for source in libraries():
            try:
                cards = source.load()
            except ZooError as fault:
                faults.append(str(fault))
                continue
            card = cards.card_for(name)
            if card is not None:
                return card
            known += cards.names()
            asked.append(source.name)
        close = difflib.get_close_matches(name, known)
        near = f"; near: {', '.join(close)}" if close else ""
        sentences = [
            f"{error}; nor do these libraries know it: {', '.join(asked) or 'none is installed'}{near}",
            *faults,
        ]
        raise UnknownModelError(". ".join(sentences)) from None


def _instead(name: str) -> str:
    """Say what to do with the name of a pipeline or of a file; empty if it is neither."""
    if isinstance(pipeline := zoo_pipelines().get(name), PipelineCard):
        models = " ".join(dict.fromkeys(pipeline.models))
        return f"{name} is a pipeline, which is made of models: `zooserve export {models}`"
    if Path(name).is_file():
        return f"{name} is a file, not the name of a model: `zooserve add {shlex.quote(name)}` makes a card for it"
    return ""


def _library(entry: EntryPoint) -> Library:
    spec = importlib.util.find_spec(entry.module)
    if spec is None or spec.origin is None:
        return Library(entry.name, "", "", (entry.module,), entry)
    tree = ast.parse(Path(spec.origin).read_bytes())
    summary = (ast.get_docstring(tree) or "").partition("\n\n")[0].partition(". ")[0].replace("\n", " ").rstrip(".")
    imported = _imported(tree)
    extras = [extra for name in imported if (extra := extra_of(name)) and extra != "export"]
    missing = [name for name in imported if importlib.util.find_spec(name) is None]
    return Library(entry.name, summary, extras[0] if extras else "export", tuple(missing), entry)


def _imported(tree: ast.Module) -> list[str]:
    """Return the top-level packages that a module imports, also inside functions."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.append(node.module)
    return list(dict.fromkeys(name.partition(".")[0] for name in names))
