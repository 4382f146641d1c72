"""Timm's classifiers, by name: every pretrained one that knows ImageNet's 1000 classes.

A card's option `architecture` is a name of timm's, with or without its tag; its one source, `weights`, is a state dict
or a safetensors file. Where there is no card, `card_for` writes one from timm's pretrained configuration.
"""

import math
import re
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import PretrainedCfg
from torch import nn

from export.activation import with_activation
from export.checkpoint import misfit, read_state_dict
from export.network import Network
from export.options import FamilyOptions
from zoo.card import Licence, Recipe
from zoo.errors import ExportError, SourceError
from zoo.labels import read_labels
from zoo.libraries import Description
from zoo.model_card import ModelCard, Normalise, Source
from zoo.sources import address
from zoo.sources.hub import UNKNOWN, file_url, look_up, recall

_HASH = re.compile(r"-([0-9a-f]{8,64})\.pth$")  # file names end in the first digits of the sha256, as torchvision's do
_HUB_FILE = "model.safetensors"
_CLASSES = 1000
_SPDX = {  # timm writes licences in lower case
    "apache-2.0": "Apache-2.0",
    "bsd-3-clause": "BSD-3-Clause",
    "cc-by-4.0": "CC-BY-4.0",
    "cc-by-nc-4.0": "CC-BY-NC-4.0",
    "mit": "MIT",
}
_LARGEST = 2**31 - 1  # bytes of one ONNX file


class Options(FamilyOptions, frozen=True):
    """Of a card of this family; `build` says what they mean."""

    architecture: str = ""


def build(card: ModelCard, files: dict[str, Path]) -> Network:
    """Build the architecture of the card's options and load its `weights` into it, strictly, the way timm does.

    The number of classes is that of the card's labels, so that a fine-tuned checkpoint needs no more than a card.

    Raises:
        ExportError: no such architecture, another input size than it can take, or not a checkpoint of it.
    """
    name = str(card.options.get("architecture", ""))
    config = _config(name)
    if config is None:
        raise ExportError(
            f"{card.name}: the option `architecture` is {name!r}, which timm {timm.__version__} does not know: "
            "expected one of its names, such as resnet18.a1_in1k or resnet18"
        )
    size, needed = (card.recipe.height, card.recipe.width), tuple(config.input_size[1:])
    if config.fixed_input_size and size != needed:
        raise ExportError(f"{card.name}: {name} takes images of {needed} pixels, but the card's recipe gives {size}")
    state = read_state_dict(files["weights"])
    module = _load(name, state, len(read_labels(card.labels)), files["weights"])
    return Network(with_activation(module, *size), f"torch {torch.__version__}", versions={"timm": timm.__version__})


def names() -> list[str]:
    """Return the names of timm's pretrained models that know ImageNet's 1000 classes, with their tags."""
    return [name for name in timm.list_models(pretrained=True) if _classes(name) == _CLASSES]


def describe(name: str) -> Description | None:
    """Describe a pretrained model of timm's without the hub; None where timm has no `name`.

    The size is unknown until a card was written, and so is the licence of those few models of which timm says none.

    Raises:
        ExportError: as `card_for`, where it is not the hub that says so.
    """
    config = _config(name)
    if config is None:
        return None
    _recipe(name, config)
    url, digest = _own_address(config)
    known = None if digest else recall(_repository(name, config), _HUB_FILE)
    where = address(known.source) if known else url or file_url(_repository(name, config), _HUB_FILE)
    return Description(
        "classify",
        _title(config),
        "timm",
        _licence(config, known.licence if known else UNKNOWN),
        {"weights": where},
        known.source.size if known else None,
    )


def card_for(name: str) -> ModelCard | None:
    """Write the card of a pretrained model of timm's; None where timm has no `name`. Without a tag, its default's.

    Files whose name ends in a hash come from their own address. All others are on the Hugging Face Hub, which is asked
    for their sha256.

    Raises:
        ExportError: it has other classes than ImageNet's 1000, no classifier, or no weights; its images are cut in a
            way that no recipe says; or the hub cannot be asked.
    """
    config = _config(name)
    if config is None:
        return None
    full = _full_name(config)
    recipe, normalise = _recipe(name, config), Normalise(_bytes(config.mean), _bytes(config.std))
    try:
        source, licence = _source(name, config)
    except SourceError as error:
        raise ExportError(
            f"{name}: a card needs the sha256 of its file, which only the hub tells: {error}. With a copy of "
            f"{_HUB_FILE} of {config.hf_hub_id}, write a card as docs/models.md shows: the family timm, the "
            f"option architecture = {full!r}, {recipe}, {normalise}, and under [sources.weights] the `file` and the "
            "`sha256` that sha256sum prints"
        ) from error
    return ModelCard(
        name=name,
        version="1",
        task="classify",
        family="timm",
        title=_title(config),
        labels="imagenet1k",
        licence=_licence(config, licence),
        recipe=recipe,
        sources={"weights": source},
        homepage=config.origin_url or "",
        normalise=normalise,
        options={"architecture": full},
        tolerance=1e-3,  # deep networks add up float noise, and there is no file in which to raise it
    )


def _config(name: str) -> PretrainedCfg | None:
    """Timm's configuration of a pretrained model, or None where there is none of that name."""
    try:
        config: PretrainedCfg | None = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError:  # no such architecture, or no such tag
        return None
    return config


def _classes(name: str) -> int:
    config = _config(name)
    return config.num_classes if config else 0


def _full_name(config: PretrainedCfg) -> str:
    return f"{config.architecture}.{config.tag}"


def _title(config: PretrainedCfg) -> str:
    return f"{_full_name(config)} of timm"


def _licence(config: PretrainedCfg, otherwise: str) -> Licence:
    """What timm says of the weights, or else what the hub does."""
    if config.license in {None, "unknown"}:
        return Licence("Apache-2.0", otherwise)
    return Licence("Apache-2.0", _SPDX.get(config.license, f"LicenseRef-{config.license}"))


def _recipe(name: str, config: PretrainedCfg) -> Recipe:
    """How timm's evaluation resizes and cuts an image, where it is one of ImageNet's classifiers."""
    if config.num_classes != _CLASSES:
        what = f"{config.num_classes} classes" if config.num_classes else "no classifier, it only extracts features"
        raise ExportError(
            f"{name}: it has {what}, and zooserve writes cards of timm's models with ImageNet's {_CLASSES} classes "
            "alone. For a checkpoint of your own classes, write a card with a file of `labels`: see docs/models.md"
        )
    _, height, width = config.input_size
    interpolation: Any = config.interpolation
    if config.crop_mode == "center" and height == width and config.crop_pct <= 1:
        short_side = math.floor(height / config.crop_pct)
        return Recipe(height, width, "crop", short_side=short_side, interpolation=interpolation)
    if config.crop_mode == "squash" and config.crop_pct == 1:
        return Recipe(height, width, "stretch", interpolation=interpolation)
    raise ExportError(
        f"{name}: its images of {height} x {width} pixels are cut by timm's crop mode {config.crop_mode!r} to "
        f"{config.crop_pct:.1%}, which no recipe of zooserve says. Write a card with the recipe that comes nearest "
        '(`resize = "stretch"`, say), and evaluate it on images of your own'
    )


def _source(name: str, config: PretrainedCfg) -> tuple[Source, str]:
    """Where the weights are, and their licence as far as the hub, where it was asked, knows it."""
    url, digest = _own_address(config)
    if digest:
        return Source(url=url, sha256_prefix=digest), UNKNOWN
    found = look_up(_repository(name, config), _HUB_FILE)
    if found.source.size and found.source.size > _LARGEST:
        raise ExportError(f"{name}: {found.source.size / 2**30:.1f} GiB of weights; one ONNX file holds at most 2 GiB")
    return found.source, found.licence


def _own_address(config: PretrainedCfg) -> tuple[str, str]:
    """The address of a file that is not on the hub, and the hash in its name; both empty where there is none."""
    url = config.url if isinstance(config.url, str) else ""
    digest = _HASH.search(url)
    return (url, digest[1]) if digest else ("", "")


def _repository(name: str, config: PretrainedCfg) -> str:
    if not config.hf_hub_id:
        raise ExportError(f"{name}: timm names no file of its weights")
    return str(config.hf_hub_id)


def _load(name: str, state: dict[str, torch.Tensor], classes: int, path: Path) -> nn.Module:
    """Let timm rename what older or foreign checkpoints call otherwise, then load strictly."""
    if not state:
        raise ExportError(f"{path} is no checkpoint of {name}: it is empty")  # timm would fetch one instead
    try:
        module: Any = timm.create_model(
            name,
            pretrained=True,
            num_classes=classes,
            pretrained_cfg_overlay={"state_dict": state, "num_classes": classes},
        )
    except Exception as error:  # its renaming fails in many ways on a checkpoint of something else
        raise misfit(path, name, error) from error
    module.pretrained_cfg.pop("state_dict", None)  # or the weights would be kept twice
    network: nn.Module = module.eval()
    return network


def _bytes(triple: tuple[float, ...]) -> tuple[float, float, float]:
    red, green, blue = (round(255 * value, 3) for value in triple)
    return red, green, blue
