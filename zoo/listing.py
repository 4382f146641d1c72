"""`zooserve list`: all models with licence, size, source and state, and the libraries that have more models by name."""

from collections.abc import Collection, Iterator
from pathlib import Path

import click
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from zoo import catalog
from zoo.cli import models_option, print_json
from zoo.errors import CardError, SourceError, UnknownModelError, ZooError
from zoo.extras import install
from zoo.files import LINE, shown
from zoo.libraries import Description, Library, describe, described, libraries, library
from zoo.licences import to_accept
from zoo.model_card import read_model_card
from zoo.pipeline_card import own_pipelines, zoo_pipelines
from zoo.served_card import ServedCard
from zoo.store import Entry, Store, entries_or_say


class Row(Struct, kw_only=True):
    """One model or pipeline, as `--json` prints it.

    Attributes:
        licence: SPDX identifier of the weights' licence.
        accept: the licences, of code or weights, that must be accepted before it is exported.
        size: of the exported graph in bytes, or else of the checkpoint, if known.
        sources: addresses of the files from which it is made.
        mirrors: further addresses of these files.
        first_downloads: for files of which the publisher gives no hash: that of the first download, "" before it.
        unmeasured: the device of a variant whose agreement with fp32 was measured on another device; else empty.
        state: `version N` if it is exported, `not exported`, or `not reachable`, `damaged` or `refused`, for which
            `problem` has the reason. Of a pipeline, its models, or those of them that are not exported.
    """

    name: str
    task: str = ""
    title: str = ""
    family: str = ""
    licence: str = ""
    accept: tuple[str, ...] = ()
    size: int | None = None
    sources: dict[str, str] = {}
    mirrors: dict[str, tuple[str, ...]] = {}
    first_downloads: dict[str, str] = {}
    precision: str = ""
    unmeasured: str = ""
    version: str | None = None
    state: str = "not exported"
    problem: str = ""


@click.command(
    "list",
    epilog="""\b
Examples:
  zooserve list                  models that have a card, and all that are exported
  zooserve list torchvision      every model that torchvision knows by name
  zooserve list ultralytics --task segment
  zooserve list timm --licence permissive
  zooserve list --json           the same for programs, with the full addresses of their files
""",
)
@click.argument("name", required=False, metavar="[LIBRARY]")
@models_option(Path)
@click.option("--task", help="Only models for this task, such as detect.")
@click.option(
    "--licence",
    "--license",
    metavar="SPDX",
    help="Only models whose weights have this licence; `permissive`: those of which nothing must be accepted.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def list_models(name: str | None, models: Path | None, task: str | None, licence: str | None, *, as_json: bool) -> None:
    """List all models, and which of them are exported.

    Cards are the zoo's own and those in $ZOOSERVE_CARDS (or ./cards). A LIBRARY lists the models that need no card.
    """
    store = Store(models)
    exported = {entry.name: entry for entry in entries_or_say(store)}  # the latest version comes last
    cards: dict[str, Description | ZooError] = dict(_cards())
    pipelines: list[Row] = []
    if name is None:
        listed = sorted(cards.keys() | exported.keys())
        pipelines = _pipelines(store.root, exported)
    else:
        more = dict(_described_by(library(name)))
        cards, listed = more | cards, list(more)  # a card takes precedence over the one that a library would make
    every = [_row(model, cards.get(model), exported.get(model)) for model in listed] + pipelines
    rows = [row for row in every if _is_wanted(row, task, licence)]
    if every and not rows:
        hint = "; of libraries: `zooserve list LIBRARY` with the same option" if name is None and libraries() else ""
        raise UnknownModelError(_none_left(every, task, licence) + hint)
    if as_json:
        print_json(rows)
        return
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=200)  # in a pipe, lines are not wrapped
    console.print(_table(rows))
    if problems := {row.problem: shown(f"{row.name}: {row.problem}", LINE) for row in reversed(rows) if row.problem}:
        console.print("", *reversed(problems.values()), sep="\n", soft_wrap=True)  # each once, for its first model
    if any(row.first_downloads for row in rows):
        console.print(
            "\n+ the publisher gives no hash: that of the first download is kept, shown by `zooserve show NAME`, and "
            "compared from then on",
            soft_wrap=True,
        )
    if any(row.accept for row in rows):
        console.print("\n* has obligations for those who serve it: `zooserve export NAME --accept-license LICENCE`")
    if name is None and (known := libraries()):
        console.print("\nMore by name, without a card:")
        console.print(_libraries_table(known))


def _is_wanted(row: Row, task: str | None, licence: str | None) -> bool:
    if task is not None and row.task != task:
        return False
    if licence is None:
        return True
    if licence.lower() == "permissive":
        return bool(row.licence) and not row.accept
    return row.licence.lower() == licence.lower()


def _none_left(rows: list[Row], task: str | None, licence: str | None) -> str:
    """Say what there is, where no model passed the filters."""
    tasks = ", ".join(sorted({row.task for row in rows if row.task}))
    licences = ", ".join(sorted({row.licence for row in rows if row.licence}))
    asked = " and ".join(
        f"--{name} {value}" for name, value in (("task", task), ("licence", licence)) if value is not None
    )
    return f"no model passes {asked}: there are the tasks {tasks}, and the licences {licences} (or `permissive`)"


def _cards() -> Iterator[tuple[str, Description | ZooError]]:
    for model, path in catalog.paths().items():
        try:
            yield model, described(read_model_card(path))
        except ZooError as error:  # an invalid card does not hide the others, nor does a pin that cannot be read
            yield model, error


def _pipelines(models: Path, exported: Collection[str]) -> list[Row]:
    """Describe the pipelines, the zoo's and a user's own, with the models that are not exported yet."""
    rows = []
    for name, card in {**zoo_pipelines(), **own_pipelines(models)}.items():
        if isinstance(card, CardError):
            rows.append(Row(name=name, task="pipeline", state="refused", problem=str(card)))
            continue
        missing = [model for model in dict.fromkeys(card.models) if model not in exported]
        state = f"needs {', '.join(missing)}" if missing else f"of {', '.join(card.models)}"
        rows.append(Row(name=name, task="pipeline", title=card.title, state=state))
    return rows


def _described_by(source: Library) -> Iterator[tuple[str, Description | ZooError]]:
    module = source.load()
    unreachable: SourceError | None = None
    for model in module.names():
        if unreachable is not None:  # do not wait again for a network that is not available
            yield model, unreachable
            continue
        try:
            if (description := describe(module, model)) is not None:
                yield model, description
        except SourceError as error:
            unreachable = error
            yield model, error
        except ZooError as error:
            yield model, error


def _row(model: str, card: Description | ZooError | None, entry: Entry | None) -> Row:
    row = Row(name=model)
    served = entry.card if entry else None
    known = card if isinstance(card, Description) else served
    if known is not None:
        row.task, row.title, row.family = known.task, known.title, known.family
        row.licence, row.accept = known.licence.weights, to_accept(known.licence)
        row.precision = "fp32"
    if isinstance(card, Description):
        row.sources, row.size = card.sources, card.size
        row.mirrors, row.first_downloads = card.mirrors, card.first_downloads
    elif isinstance(card, ZooError):
        row.state, row.problem = "refused", str(card).removeprefix(f"{model}: ")
        if isinstance(card, SourceError):
            row.state = "not reachable"
    if entry is not None:
        row.version = entry.version
        row.state = f"version {entry.version}" if served else "damaged"
        row.problem = entry.problem
    if served is not None:
        row.size, row.precision = served.size, served.precision
        row.sources = row.sources or served.provenance.sources
        row.unmeasured = served.unmeasured if isinstance(served, ServedCard) else ""
    return row


def _table(rows: list[Row]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("NAME", "TASK", "WEIGHTS' LICENCE"):
        table.add_column(heading, overflow="fold")
    table.add_column("SIZE", justify="right", no_wrap=True)
    for heading in ("SOURCE", "PRECISION", "STATE"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        cells = (
            row.name,
            row.task,
            row.licence + (" *" if row.accept else ""),
            f"{row.size / 1e6:.1f} MB" if row.size else "",
            _places(row),
            row.precision + (f", not measured on {row.unmeasured}" if row.unmeasured else ""),
            row.state,
        )
        table.add_row(*map(shown, cells))
    return table


def _places(row: Row) -> str:
    """Return the kinds of all places of a model's files, in order, and a mark where a first download is trusted."""
    addresses = (*row.sources.values(), *(one for places in row.mirrors.values() for one in places))
    return ", ".join(dict.fromkeys(map(_kind, addresses))) + (" +" if row.first_downloads else "")


def _kind(source: str) -> str:
    """Return `pypi` or `npm` for package URLs, `https` or `file` for others."""
    scheme, _, rest = source.partition(":")
    return rest.partition("/")[0] if scheme == "pkg" else scheme


def _libraries_table(known: tuple[Library, ...]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for source in known:
        how = f"zooserve list {source.name}"
        if source.missing:
            how = install(source.extra) if source.extra else f"install {source.missing[0]}"
        table.add_row(source.name, source.summary, how)
    return table
