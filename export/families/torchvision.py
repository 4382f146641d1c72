"""Torchvision's 80 classifiers and six segmenters.

A card names the `architecture` in its options. Where there is no card, `card_for` writes one for every classifier and
segmenter that torchvision has, from the metadata of its default weights; `zoo.libraries` asks it.
"""

import math
import re
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model, get_model_weights, list_models, segmentation

from export.activation import with_activation
from export.checkpoint import load, read_state_dict
from export.network import Network
from export.options import FamilyOptions
from zoo.card import Licence, Recipe
from zoo.errors import ExportError
from zoo.labels import read_labels
from zoo.model_card import ModelCard, Normalise, Source

_HASH = re.compile(r"-([0-9a-f]{8,64})\.pth$")
_SWAG_LICENCE = "CC-BY-NC-4.0"  # the only other licence among torchvision's weights
_MAX_MEGABYTES = 2047  # of one ONNX file
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
"""DenseNet's checkpoints are older than its layers' names."""


class Options(FamilyOptions, frozen=True):
    """Of a card of this family; `build` says what they mean."""

    architecture: str = ""
    transform_input: bool = True


def build(card: ModelCard, files: dict[str, Path]) -> Network:
    """Build the architecture of the card's options and load its `weights` into it, strictly.

    Options: `architecture`, a name of torchvision's; `transform_input` (googlenet and inception_v3 only, default true):
    change from ImageNet's normalisation to the one that TensorFlow trained those two with.

    Raises:
        ExportError: no such architecture, or not a checkpoint of it.
    """
    architecture = str(card.options.get("architecture", ""))
    if architecture not in names():
        raise ExportError(
            f"{card.name}: the option `architecture` is {architecture!r}, which is none of torchvision "
            f"{torchvision.__version__}'s classifiers and segmenters: {', '.join(names())}"
        )
    state = read_state_dict(files["weights"])
    settings: dict[str, object] = {"num_classes": len(read_labels(card.labels))}
    if card.task == "segment":
        settings["weights_backbone"] = None
        if "lraspp" not in architecture:
            settings["aux_loss"] = any(key.startswith("aux_classifier.") for key in state)
    if architecture in {"googlenet", "inception_v3"}:
        settings["transform_input"] = bool(card.options.get("transform_input", True))
        settings["aux_logits"] = any(key.lower().startswith("aux") for key in state)
        settings["init_weights"] = False
    if architecture.startswith("densenet"):
        for key in list(state):
            state[_OLD_DENSENET.sub(r"\1\2", key)] = state.pop(key)
    module: nn.Module = get_model(architecture, weights=None, **settings)
    load(module, state, files["weights"], architecture)
    if card.task == "segment":
        module = _Segmenter(module)
    else:
        module = with_activation(module, card.recipe.height, card.recipe.width)
    return Network(module, f"torch {torch.__version__}", versions={"torchvision": torchvision.__version__})


class _Segmenter(nn.Module):
    """Names the answer: float32 [N, 3, H, W] -> `logits` [N, C, H, W]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.network(x)["out"]}


def source_of(name: str, weights: WeightsEnum) -> Source:
    """Return the file of a model's weights as torchvision publishes it.

    Raises:
        ExportError: its name does not end in the first digits of its sha256, as torchvision's do.
    """
    digest = _HASH.search(weights.url)
    if digest is None:
        raise ExportError(f"{name}: torchvision's file name {weights.url!r} does not end in a hash")
    size = math.ceil((weights.meta["_file_size"] + 5e-4) * 2**20)  # in MiB to three decimals; no file may be larger
    return Source(url=weights.url, sha256_prefix=digest[1], size=size)


def names() -> list[str]:
    """Return the names of torchvision's classifiers and segmenters. Quantised ones are others' business."""
    return [*list_models(module=torchvision.models), *list_models(module=segmentation)]


def card_for(name: str) -> ModelCard | None:
    """Write the card of a torchvision model from its default weights' metadata; None where torchvision has no `name`.

    Classifiers keep their evaluation preset. Segmenters were evaluated at a short side of 520 pixels and whatever long
    side; a served graph has one size, so they get a letterbox of 520 x 520, padded with the mean colour that
    normalisation turns into zeros: no pixel of the image is lost and the cost is bounded, but the short side of a 4:3
    photo is 390 pixels, so small things are seen a quarter smaller than in the published evaluation.

    Its tolerance is 1e-3: deep networks add up float noise, and there is no file in which to raise it.

    Raises:
        ExportError: its weights are too large for one ONNX file.
    """
    if name not in names():
        return None
    weights = get_model_weights(name).DEFAULT
    megabytes = weights.meta["_file_size"]
    if megabytes > _MAX_MEGABYTES:
        raise ExportError(f"{name}: {megabytes / 1024:.1f} GiB of weights; one ONNX file holds at most 2 GiB")
    preset = weights.transforms()
    segmenter = name in list_models(module=segmentation)
    mean, std = (tuple(round(255 * value, 3) for value in triple) for triple in (preset.mean, preset.std))
    interpolation = preset.interpolation.value
    if segmenter:
        side = preset.resize_size[0]
        pad = tuple(round(value) for value in mean)
        recipe = Recipe(side, side, "letterbox", interpolation=interpolation, pad=pad)
    else:
        side = preset.crop_size[0]
        recipe = Recipe(side, side, "crop", short_side=preset.resize_size[0], interpolation=interpolation)
    return ModelCard(
        name=name,
        version="1",
        task="segment" if segmenter else "classify",
        family="torchvision",
        title=f"{name} of torchvision, {weights.name}",
        labels="voc21" if segmenter else "imagenet1k",
        licence=Licence("BSD-3-Clause", _SWAG_LICENCE if "SWAG" in weights.name else "BSD-3-Clause"),
        recipe=recipe,
        sources={"weights": source_of(name, weights)},
        homepage=weights.meta["recipe"],
        normalise=Normalise(mean, std),
        options={"architecture": name},
        tolerance=1e-3,
    )
