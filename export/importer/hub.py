"""Cards for checkpoints of timm and transformers, from the JSON files beside them. `export.importer.adding` calls."""

from pathlib import Path

import msgspec

from export.importer.beside import CONFIG, PREPROCESSOR, Beside
from export.importer.checkpoint import complete_card, draft_of
from export.importer.draft import Draft, own_file
from export.importer.labels import write_names
from export.importer.options import ImportOptions
from zoo.card import Licence, Recipe
from zoo.errors import ExportError
from zoo.model_card import ModelCard, Normalise

DETECTORS = {f"{network}ForObjectDetection": network for network in ("RTDetr", "RTDetrV2", "DFine", "RfDetr")}
"""Networks of transformers that the family `transformers` builds, by their class."""


def draft_timm(path: Path, beside: Beside, stated: ImportOptions, scratch: Path) -> Draft:
    """Propose the card of a checkpoint of timm's from the `config.json` beside it. Nothing is asked on the network.

    Raises:
        ExportError: it does not name its classes, or its images are prepared in a way that no recipe says.
        CardError: the label file is missing or has an empty line.
    """
    size, resize = stated.size or beside.size, stated.resize or beside.resize
    if size is None or resize is None:
        raise ExportError(
            f"{path}: {beside.known_from} says nothing of its images that a recipe can say: --size and --resize"
        )
    labels, known = _labels(beside, stated, scratch)
    if labels is None and beside.classes == 1000:
        labels, known = "imagenet1k", "assumed: imagenet1k has as many"
    if labels is None:
        raise ExportError(f"{path}: its {beside.classes or ''} classes need names: --labels names.txt, one per line")
    side = beside.short_side if size == beside.size and resize == beside.resize else None
    if resize == "crop":
        side = side or round(max(size) / 0.875)
    recipe = {"height": size[0], "width": size[1], "resize": resize, "short_side": side}
    card = ModelCard(
        name=stated.name,
        version="1",
        task="classify",
        family="timm",
        title=f"{path.name}, {beside.architecture} of timm",
        labels=labels,
        licence=Licence("Apache-2.0", ""),
        recipe=msgspec.convert(recipe | {"interpolation": beside.interpolation or "bilinear"}, Recipe),
        sources={"weights": own_file(path)},
        normalise=beside.normalise or Normalise(),
        options={"architecture": beside.architecture},
        tolerance=1e-3,
    )
    found = _found(beside, stated, known)
    return draft_of(complete_card(path, stated, card), found, "given" if stated.resize else beside.known_from)


def draft_transformers(path: Path, beside: Beside, stated: ImportOptions, scratch: Path) -> Draft:
    """Propose the card of a detector of transformers from the JSON files beside it. Nothing is asked on the network.

    Raises:
        ExportError: they do not say the size of its input, or do not name its classes.
        CardError: the label file is missing or has an empty line.
    """
    size = stated.size or beside.size
    if size is None:
        raise ExportError(f"{path}: there is no {PREPROCESSOR} beside it with the size of its input: say --size")
    labels, known = _labels(beside, stated, scratch)
    if labels is None:
        raise ExportError(f"{path}: {CONFIG} beside it does not name its classes: --labels names.txt, one per line")
    card = ModelCard(
        name=stated.name,
        version="1",
        task="detect",
        family="transformers",
        title=f"{path.name}, {DETECTORS[beside.transformers]} of transformers",
        labels=labels,
        licence=Licence("Apache-2.0", ""),
        recipe=Recipe(*size, "stretch", interpolation=beside.interpolation or "bilinear"),
        sources={"weights": own_file(path), "config": own_file(path.parent / CONFIG)},
        normalise=beside.normalise or Normalise(),
        tolerance={"boxes": 2e-2, "scores": 1e-3},
    )
    found = _found(beside, stated, known)
    return draft_of(complete_card(path, stated, card), found, "given" if stated.resize else "usual for such networks")


def _labels(beside: Beside, stated: ImportOptions, scratch: Path) -> tuple[str | None, str]:
    """Return the labels that are given or stand beside the checkpoint, and which of both."""
    if stated.labels is None and beside.labels:
        return write_names(beside.labels, scratch, stated.name), beside.known_from
    return stated.labels, "given"


def _found(beside: Beside, stated: ImportOptions, labels: str) -> dict[str, str]:
    """Return how each part of a card is known."""
    where = beside.known_from
    return {"labels": labels, "input": "given" if stated.size else where, "pixels": where}
