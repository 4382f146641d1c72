"""Cards for checkpoints that are no graphs: Darknet's, Caffe's, Ultralytics', and those of a library's architectures.

Called by `export.importer.adding`. What the cfg or the library's card of the architecture says is taken from there.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch

from export.caffe.net import declared_input, read_net
from export.darknet.cfg import read_cfg
from export.families import caffe
from export.families.ultralytics import TASKS
from export.importer.draft import AGPL, Draft, Finding, own_file
from export.importer.labels import shown_names, write_names
from export.importer.options import ImportOptions
from export.importer.pixels import caffe_pixels
from export.ultralytics.checkpoint import read_model
from export.ultralytics.notes import class_names
from export.ultralytics.selection import prepared
from zoo.card import Licence, Recipe
from zoo.errors import ExportError
from zoo.keypoints import numbered
from zoo.labels import read_labels
from zoo.libraries import libraries, library
from zoo.model_card import ModelCard, Normalise


def draft_darknet(path: Path, cfg: Path, stated: ImportOptions) -> Draft:
    """Propose the card of a Darknet detector.

    Raises:
        ExportError: the cfg cannot be read, or has other classes than there are labels.
        CardError: the label file is missing or has an empty line.
    """
    net, *layers = read_cfg(cfg)
    width, height = net.integer("width"), net.integer("height")
    if stated.size is not None:
        height, width = stated.size
    classes = max((layer.integer("classes", 0) for layer in layers), default=0)
    labels = stated.labels or ("coco80" if classes == 80 else None)
    if labels is None:
        raise ExportError(f"{cfg}: its {classes} classes need names: --labels names.txt, one name per line")
    if (found := len(read_labels(labels))) != classes:
        raise ExportError(f"{labels} has {found} labels, but {cfg} has {classes} classes")
    card = complete_card(
        path,
        stated,
        ModelCard(
            name=stated.name,
            version="1",
            task="detect",
            family="darknet",
            title=f"{path.name}, {classes} classes",
            labels=labels,
            licence=Licence("LicenseRef-Darknet", ""),
            recipe=Recipe(height, width, "letterbox"),
            sources={"cfg": own_file(cfg), "weights": own_file(path)},
            normalise=Normalise(channels="grey" if net.integer("channels", 3) == 1 else "rgb"),
            tolerance={"scores": 1e-3},
        ),
    )
    return draft_of(
        card, {"input": "given" if stated.size else "the cfg", "labels": "given" if stated.labels else "COCO's"}
    )


def draft_architecture(path: Path, architecture: str, family: str | None, stated: ImportOptions) -> Draft:
    """Propose the card of a checkpoint of an architecture that a library knows; its default weights' recipe is taken.

    Raises:
        ExportError: no installed library knows the architecture.
        CardError: the label file is missing or has an empty line.
    """
    asked = [library(family)] if family else [known for known in libraries() if not known.missing]
    base = next((card for known in asked if (card := known.load().card_for(architecture))), None)
    if base is None:
        raise ExportError(
            f"--architecture {architecture}: {' and '.join(known.name for known in asked)} do not know it; "
            f"`zooserve list {asked[0].name}` shows those that there are"
        )
    recipe = base.recipe
    if stated.size is not None:
        height, width = stated.size
        side = round(max(height, width) * recipe.short_side / recipe.height) if recipe.short_side else None
        recipe = msgspec.structs.replace(recipe, height=height, width=width, short_side=side)
    changed = msgspec.structs.replace(
        base,
        name=stated.name,
        title=f"{path.name}, {architecture}",
        homepage="",
        labels=stated.labels or base.labels,
        recipe=recipe,
        sources={"weights": own_file(path)},
        expect=(),
        default=False,
        task_default=False,
    )
    where = f"as {base.family}'s {architecture}"
    return draft_of(
        complete_card(path, stated, changed), {"labels": "given" if stated.labels else f"assumed: {where}"}, where
    )


def draft_caffe(path: Path, prototxt: Path, stated: ImportOptions) -> Draft:
    """Propose the card of a Caffe classifier. What its training left in the file is taken, else Caffe's usual pixels.

    Raises:
        ExportError: a file cannot be read, has layers that are not known, or other classes than there are labels.
        CardError: the label file is missing or has an empty line.
    """
    net = read_net(path, prototxt, stated.output)
    declared = declared_input(prototxt, net.image)
    if declared is None and stated.size is None:
        raise ExportError(f"{prototxt}: its input {net.image!r} has no size: say --size, such as --size 224")
    channels, height, width = declared or (3, 0, 0)
    height, width = stated.size or (height, width)
    if channels not in {1, 3}:
        raise ExportError(f"{prototxt}: its input {net.image!r} has {channels} channels, expected 3 (BGR) or 1 (grey)")
    candidates, known = caffe_pixels(path, stated, grey=channels == 1)
    card = complete_card(
        path,
        stated,
        ModelCard(
            name=stated.name,
            version="1",
            task="classify",
            family="caffe",
            title=path.name,
            labels=stated.labels or "imagenet1k",
            licence=Licence("LicenseRef-Caffe", ""),
            recipe=Recipe(height, width, "crop", short_side=max(256, round(max(height, width) / 0.875))),
            sources={"weights": own_file(path), "prototxt": own_file(prototxt)},
            normalise=next(iter(candidates.values())),
            options={"output": stated.output} if stated.output else {},
        ),
    )
    module = caffe.build(card, {"weights": path, "prototxt": prototxt}).module
    with torch.no_grad():
        classes = module(torch.zeros(1, channels, height, width))["logits"].shape[1]  # type: ignore[operator]
    if stated.labels is None and classes != len(read_labels(card.labels)):
        raise ExportError(f"{path}: its {classes} classes need names: --labels names.txt, one name per line")
    if (found := len(read_labels(card.labels))) != classes:
        raise ExportError(f"{card.labels} has {found} labels, but {path} has {classes} classes")
    card = msgspec.structs.replace(card, title=f"{path.name}, {classes} classes")
    draft = draft_of(
        card,
        {
            "input": "given" if stated.size else "the prototxt",
            "labels": "given" if stated.labels else "assumed: imagenet1k has as many",
            "pixels": known,
        },
        "usual for Caffe",
    )
    return dataclasses.replace(draft, candidates=candidates)


def draft_ultralytics(path: Path, stated: ImportOptions, scratch: Path) -> Draft:
    """Propose the card of a checkpoint of Ultralytics', which knows its class names and its task.

    Raises:
        ExportError: the extra `ultralytics` is not installed, the file needs code that is not allowed, or it has other
            classes than there are labels.
        CardError: the label file is missing or has an empty line.
    """
    model = read_model(path)
    names = class_names(getattr(model, "names", None))
    labels = stated.labels
    if labels is None:
        if not names:
            raise ExportError(f"{path} does not name its classes: --labels names.txt, one name per line")
        labels = write_names(names, scratch, stated.name)
    if names and (found := len(read_labels(labels))) != len(names):
        raise ExportError(f"{labels} has {found} labels, but {path} has {len(names)} classes")
    head: Any = next((layer for layer in model.modules() if type(layer).__name__ in TASKS), None)
    task = TASKS[type(head).__name__] if head is not None else "detect"
    height, width = stated.size or ((224, 224) if task == "classify" else (640, 640))
    recipe = prepared(Recipe(height, width, "stretch" if type(head).__name__ == "RTDETRDecoder" else "letterbox"))
    if task == "classify":
        recipe = Recipe(height, width, "crop", short_side=max(height, width))
    card = ModelCard(
        name=stated.name,
        version="1",
        task=task,
        family="ultralytics",
        title=f"{path.name}, {len(read_labels(labels))} classes",
        labels=labels,
        licence=Licence(AGPL, ""),
        recipe=recipe,
        sources={"weights": own_file(path)},
        tolerance={"scores": 1e-3} if task != "classify" else {},
        keypoints=numbered(head.kpt_shape[0]) if head is not None and task == "pose" else None,
    )
    known = {"labels": "given" if stated.labels else "the file"}
    if stated.licence is None:
        known["licence"] = "Ultralytics' own"
    card = complete_card(path, dataclasses.replace(stated, licence=stated.licence or AGPL), card)
    return draft_of(card, known, "usual for Ultralytics")


def complete_card(path: Path, stated: ImportOptions, card: ModelCard) -> ModelCard:
    """Return the card with what is stated about the file: licence, resizing, normalisation.

    Raises:
        ExportError: no licence is stated, or another task than the card's.
    """
    if stated.licence is None:
        raise ExportError(
            f"{path}: under which licence are its weights? --license MIT, another SPDX identifier, or LicenseRef-own "
            "where they are yours"
        )
    if stated.task not in {None, card.task}:
        raise ExportError(
            f"{path}: --task is {stated.task}, but {card.family} makes a model that can {card.task} of it"
        )
    recipe, normalise = card.recipe, card.normalise
    if stated.resize is not None and stated.resize != recipe.resize:
        side = round(max(recipe.height, recipe.width) / 0.875) if stated.resize == "crop" else None
        resampling = "pillow" if stated.resize == "crop" else recipe.resampling  # the others do not crop
        recipe = msgspec.structs.replace(recipe, resize=stated.resize, short_side=side, resampling=resampling)
    return msgspec.structs.replace(
        card,
        licence=Licence(card.licence.code, stated.licence),
        recipe=recipe,
        normalise=Normalise(
            stated.mean or normalise.mean,
            stated.std or normalise.std,
            stated.channels or normalise.channels,  # type: ignore[arg-type]
        ),
    )


def draft_of(card: ModelCard, known: Mapping[str, str], usual: str = "usual for Darknet") -> Draft:
    """Return the proposal of a card: how `labels`, `input`, `pixels` and `licence` are known, where not as `usual`."""
    labels = read_labels(card.labels)
    recipe, normalise = card.recipe, card.normalise
    findings = [
        Finding("task", card.task, f"the family {card.family}"),
        Finding("input", f"{recipe.width} x {recipe.height} pixels", known.get("input", usual)),
        Finding("resize", recipe.resize + (f", short side {recipe.short_side}" if recipe.short_side else ""), usual),
        Finding(
            "pixels",
            f"{normalise.channels}, mean {list(normalise.mean)}, std {list(normalise.std)}",
            known.get("pixels", usual),
        ),
        Finding("labels", shown_names(labels), known["labels"]),
        Finding(
            "licence", f"{card.licence.weights} (weights), {card.licence.code} (code)", known.get("licence", "given")
        ),
    ]
    return Draft(card, labels, findings, {"as usual": normalise})
