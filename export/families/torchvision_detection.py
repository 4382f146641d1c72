"""Torchvision's detectors: SSD, SSDlite, RetinaNet, FCOS and Faster R-CNN.

A card names the `architecture` in its options. Where there is no card, `card_for` writes one from the metadata of the
default weights; `zoo.libraries` asks it.
"""

from pathlib import Path
from typing import Any

import msgspec
import torch
import torchvision
from torch import nn
from torchvision.models import get_model, get_model_weights, list_models
from torchvision.models.detection import FasterRCNN

from export.checkpoint import load, read_state_dict
from export.families.torchvision import source_of
from export.network import Network
from export.options import FamilyOptions
from export.torchvision_detection.one_stage import OneStage
from export.torchvision_detection.two_stage import TwoStage
from zoo.card import USUAL, Licence, Nms, Recipe
from zoo.errors import ExportError
from zoo.labels import read_labels
from zoo.model_card import ModelCard, Normalise

_COCO = "coco80"
_SIDE = {"ssd300_vgg16": 300, "ssdlite320_mobilenet_v3_large": 320, "fasterrcnn_mobilenet_v3_large_320_fpn": 320}
_FIXED = ("ssd",)  # whose anchors are made for one size
_STRIDE = 32  # torchvision pads the others' images to a multiple of it
_IMAGENET = Normalise((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
_NORMALISE = {
    "ssd300_vgg16": Normalise((122.99925, 116.9991, 103.9992), (1.0, 1.0, 1.0)),
    "ssdlite320_mobilenet_v3_large": Normalise((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
}
_NO_EPS = {"fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn"}
"""Trained before torchvision's frozen batch norm had an epsilon; torchvision sets it to 0 for their weights."""


class Options(FamilyOptions, frozen=True):
    """Of a card of this family; `build` says what they mean."""

    architecture: str = ""
    batch_norm_eps: float | None = None


def build(card: ModelCard, files: dict[str, Path]) -> Network:
    """Build the architecture of the card's options and load its `weights` into it, strictly.

    With the labels `coco80` the network has torchvision's 91 COCO categories, of which the background and the ten that
    COCO never used are left out, so class ids are those of the labels. With your labels it has one class more than
    labels: the background, which comes first.

    Options: `architecture`, a name of torchvision's; `batch_norm_eps`, the epsilon of the batch norms where it is not
    the architecture's own: 0 for checkpoints fine-tuned from torchvision's `fasterrcnn_resnet50_fpn` and
    `retinanet_resnet50_fpn`.

    Raises:
        ExportError: no such architecture, not a checkpoint of it, or an input size that it does not take.
    """
    architecture = str(card.options.get("architecture", ""))
    if architecture not in names():
        raise ExportError(
            f"{card.name}: the option `architecture` is {architecture!r}, which is none of torchvision "
            f"{torchvision.__version__}'s detectors: {', '.join(names())}"
        )
    size = (card.recipe.height, card.recipe.width)
    _check_size(card.name, architecture, size)
    state = read_state_dict(files["weights"])
    columns, classes = _columns(card)
    model: nn.Module = get_model(architecture, weights=None, weights_backbone=None, num_classes=classes)
    load(model, state, files["weights"], architecture)
    if "batch_norm_eps" in card.options:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = float(card.options["batch_norm_eps"])
    published = _selection(model)
    network = TwoStage if isinstance(model, FasterRCNN) else OneStage
    return Network(
        network(model, columns, size).eval(),
        f"torch {torch.__version__}",
        versions={"torchvision": torchvision.__version__},
        original=False,
        nms_options=msgspec.structs.replace(published, score_threshold=USUAL.score_threshold),
        evaluation=published,
    )


def _selection(model: nn.Module) -> Nms:
    """How torchvision selects objects: with a score so low that nearly all candidates are ranked."""
    heads: Any = model.roi_heads if isinstance(model, FasterRCNN) else model
    return Nms(heads.score_thresh, heads.nms_thresh, heads.detections_per_img, clip_first=True)


def _check_size(name: str, architecture: str, size: tuple[int, int]) -> None:
    if architecture.startswith(_FIXED):
        side = _SIDE[architecture]
        if size != (side, side):
            raise ExportError(
                f"{name}: the recipe is {size[0]} x {size[1]} pixels, but {architecture} takes {side} x {side} only"
            )
    elif size[0] % _STRIDE or size[1] % _STRIDE:
        raise ExportError(
            f"{name}: the recipe is {size[0]} x {size[1]} pixels, but {architecture} takes multiples of {_STRIDE}"
        )


def _columns(card: ModelCard) -> tuple[list[int], int]:
    """The network's class columns in the order of the labels, and how many columns it has."""
    labels = read_labels(card.labels)
    if card.labels != _COCO:
        return list(range(1, len(labels) + 1)), len(labels) + 1
    categories = get_model_weights(names()[0]).DEFAULT.meta["categories"]
    return [categories.index(label) for label in labels], len(categories)


def names() -> list[str]:
    """Return the names of torchvision's detectors of boxes."""
    with_more = ("maskrcnn", "keypointrcnn")
    return [name for name in list_models(module=torchvision.models.detection) if not name.startswith(with_more)]


def _recipe(side: int, pad: tuple[int, int, int], *, fixed: bool) -> Recipe:
    """As `GeneralizedRCNNTransform` with that fixed size; or with a smallest and largest side of `side`."""
    if fixed:
        return Recipe(side, side, "stretch", resampling="torch")
    return Recipe(side, side, "letterbox_top_left", pad=pad, resampling="torch", rounding="floor")


def card_for(name: str) -> ModelCard | None:
    """Write the card of a detector from its default weights' metadata; None where torchvision has no `name`.

    SSD and SSDlite keep their one size, to which torchvision stretches an image. The others were evaluated at a short
    side of 800 pixels (320 for `..._320_fpn`) and whatever long side up to 1333; a served graph has one size, so they
    get a letterbox of 800 x 800 (320 x 320), padded with the mean colour that normalisation turns into zeros, as
    torchvision pads its batches. The cost is bounded, a quarter below that of a 4:3 photo in the published evaluation,
    and no pixel is lost, but the short side of such a photo is 600 pixels, so things are seen a quarter smaller. A card
    of yours may say 1088 x 1088 to have them at their evaluated size.

    As torchvision does, the recipe resizes without antialiasing and pads at the right and at the bottom.

    Its tolerances are 0.02 pixels for boxes and 1e-3 for scores: deep networks add up float noise, boxes multiply it by
    their size, and there is no file in which to raise it.
    """
    if name not in names():
        return None
    weights = get_model_weights(name).DEFAULT
    side = _SIDE.get(name, 800)
    normalise = _NORMALISE.get(name, _IMAGENET)
    red, green, blue = (round(value) for value in normalise.mean)
    fixed = name.startswith(_FIXED)
    options: dict[str, str | int | float | bool] = {"architecture": name}
    if name in _NO_EPS:
        options["batch_norm_eps"] = 0.0
    return ModelCard(
        name=name,
        version="1",
        task="detect",
        family="torchvision_detection",
        title=f"{name} of torchvision, {weights.name}",
        labels=_COCO,
        licence=Licence("BSD-3-Clause", "BSD-3-Clause"),
        recipe=_recipe(side, (red, green, blue), fixed=fixed),
        sources={"weights": source_of(name, weights)},
        homepage=weights.meta["recipe"],
        normalise=normalise,
        options=options,
        tolerance={"boxes": 2e-2, "scores": 1e-3},
    )
