"""`zooserve show` prints all that is known about a model; `verify` checks that exported models are intact."""

from collections.abc import Collection, Mapping
from pathlib import Path

import click

from zoo import catalog
from zoo.card import Recipe
from zoo.cli import models_option, print_json
from zoo.errors import StoreError
from zoo.files import LINE, shown
from zoo.libraries import find_card
from zoo.licences import to_accept
from zoo.model_card import AnyCard, ModelCard, Source
from zoo.pipeline_card import PipelineCard, find_pipeline
from zoo.served_card import AnyServed, Parity, ServedCard, ServedTensors
from zoo.sources import address
from zoo.sources.pins import first_download
from zoo.store import Entry, Store, entries_or_say, verify_folder

_models = models_option(Path)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


@click.command()
@click.argument("name")
@_models
@_as_json
def show(name: str, models: Path | None, as_json: bool) -> None:
    """Show all that is known about one model, or a pipeline.

    NAME is one of `zooserve list`, one that a library knows (resnet50), or the path of a card (`.toml`).
    """
    store = Store(models)
    exported = {entry.name: entry for entry in entries_or_say(store)}
    entry = exported.get(name)
    if entry is None and (pipeline := find_pipeline(name, store.root)) is not None:
        if as_json:
            print_json({"pipeline": pipeline, "missing": _missing(pipeline, exported)})
        else:
            _print_rows(_pipeline_rows(pipeline, exported))
        return
    card = find_card(name) if entry is None or name in catalog.names() else None
    entry = entry or (exported.get(card.name) if card else None)
    served = entry.card if entry else None
    if as_json:
        print_json({"card": card, "served": served, "problem": entry.problem if entry else ""})
        return
    _print_rows(_rows(card, served, entry))


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@_models
@_as_json
def verify(names: tuple[str, ...], models: Path | None, as_json: bool) -> None:
    """Recompute every hash of the exported models.

    Without a NAME, all models in the store are verified. The exit code is 1 if one of them is not intact.
    """
    store = Store(models)
    for name in names:
        store.latest(name)
    entries = [entry for entry in entries_or_say(store) if not names or entry.name in names]
    if not entries:
        raise StoreError(f"{store.root} holds no models: run `zooserve export --default`")
    problems = [_problem(entry) for entry in entries]
    if as_json:
        print_json(
            [
                {"name": entry.name, "version": entry.version, "intact": not problem, "problem": problem}
                for entry, problem in zip(entries, problems, strict=True)
            ]
        )
    else:
        for entry, problem in zip(entries, problems, strict=True):
            click.echo(f"{entry.name} {entry.version}: {shown(problem or 'intact', LINE)}")
    if any(problems):
        raise click.exceptions.Exit(1)


def _problem(entry: Entry) -> str:
    try:
        verify_folder(entry.path)
    except StoreError as error:
        return str(error)
    return ""


def _rows(card: AnyCard | None, served: AnyServed | None, entry: Entry | None) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    if (known := card or served) is not None:
        rows += [
            ("name", known.name),
            ("title", known.title),
            ("task", known.task),
            ("family", known.family),
            ("homepage", known.homepage),
            ("licence", f"{known.licence.weights} (weights), {known.licence.code} (code)"),
        ]
        if isinstance(known, ModelCard | ServedCard):
            rows.append(("input", _input(known.recipe)))
    if card is not None:
        if licences := to_accept(card.licence):
            rows.append(("to accept", " ".join(f"--accept-license {licence}" for licence in licences)))
        if isinstance(card, ModelCard):
            rows.append(("labels", card.labels))
        for name, source in card.sources.items():
            rows += [(f"source {name}", f"{address(source)} {_hash(source)}")]
            rows += [(f"mirror {name}", address(place)) for place in source.mirrors]
    if entry is None:
        rows.append(("exported", f"no: run `zooserve export {card.name if card else ''}`"))
    elif served is None:
        rows.append(("exported", f"damaged: {entry.problem}"))
    else:
        rows += [
            ("exported", f"version {served.version}, {entry.path}, {served.size / 1e6:.1f} MB, {served.precision}"),
            ("sha256", served.sha256),
            ("at", served.provenance.exported_at),
            ("with", ", ".join(f"{name} {number}" for name, number in served.provenance.exported_with.items())),
        ]
        if isinstance(served, ServedTensors):
            rows += [(f"input {x.name}", f"{x.dtype} {_shape(x.shape)}") for x in served.inputs]
        rows += [(f"output {output.name}", f"{output.dtype} {_shape(output.shape)}") for output in served.outputs]
        rows += [
            (f"parity {name}", f"differs by up to {value:.2g} from {served.parity.reference}{_whose(served.parity)}")
            for name, value in served.parity.max_difference.items()
        ]
        if isinstance(served, ServedCard) and (kept := served.agreement):
            answers = f"keeps {kept.agreement:.1%} of {kept.base}'s sure answers on {kept.photos} photos"
            where = kept.provider.removesuffix("ExecutionProvider")
            where += f"; not measured on {served.unmeasured}, which it is for" if served.unmeasured else ""
            rows.append(("agreement", f"{answers}, shifted by {kept.shift:.3f}, on {where}"))
        rows.append(("golden", ", ".join(file.removeprefix("golden/") for file in served.files if "/" in file)))
    return rows


def _pipeline_rows(card: PipelineCard, exported: Collection[str]) -> list[tuple[str, str]]:
    detect, crops, second = card.detect, card.crops, card.second
    missing = _missing(card, exported)
    crop = (
        f"each box and {crops.pad:.0%} of it on each side, from the image's own pixels; at most {crops.max_crops}, "
        f"none smaller than {crops.min_size} pixels"
    )
    return [
        ("name", card.name),
        ("title", card.title),
        ("task", "pipeline"),
        ("1. detect", f"{', '.join(detect.classes) or 'all classes'}, with {detect.model}{_given(detect.options)}"),
        ("2. crop", crop),
        (f"3. {second.task}", f"each crop, with {second.model}{_given(second.options)}"),
        ("ask", f"POST /v1/pipelines/{card.name}, or `zooserve predict {card.name} photo.jpg`"),
        ("exported", f"not all of it: run `zooserve export {' '.join(missing)}`" if missing else "both models"),
    ]


def _given(options: Mapping[str, object]) -> str:
    return f" ({', '.join(f'{name}={value}' for name, value in options.items())})" if options else ""


def _missing(card: PipelineCard, exported: Collection[str]) -> list[str]:
    """Return which of a pipeline's models are not exported."""
    return [name for name in dict.fromkeys(card.models) if name not in exported]


def _print_rows(rows: list[tuple[str, str]]) -> None:
    width = max(len(key) for key, _ in rows)
    for key, value in rows:
        click.echo(f"{key:<{width}}  {shown(value, LINE)}")


def _whose(parity: Parity) -> str:
    if parity.original is None:
        return ""
    return ", the original" if parity.original else ", our reading of the original"


def _hash(source: Source) -> str:
    """Return a source's sha256 for people, and where it is from if not from the card."""
    trusted = first_download(source)
    if trusted is None:
        return f"sha256:{source.digest}"
    return f"sha256:{trusted} (of the first download)" if trusted else "(no hash is given: the first download counts)"


def _input(recipe: Recipe) -> str:
    how = f"crop from a short side of {recipe.short_side}" if recipe.short_side else recipe.resize
    return f"{recipe.width} x {recipe.height} RGB, {how}, {recipe.interpolation}"


def _shape(shape: tuple[int | None, ...]) -> str:
    sides = ["?" if side is None else str(side) for side in shape[1:]]
    return f"[{', '.join(['N', *sides])}]"
