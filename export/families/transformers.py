"""Detectors of Hugging Face's transformers, by name: RT-DETR, RT-DETRv2, D-FINE and RF-DETR.

The names are those of the repositories in which their authors publish them. A card's sources are `weights`, a
safetensors file, and `config`, the `config.json` beside it; that names the architecture, so a card of a fine-tuned
checkpoint needs no options. Where there is no card, `card_for` writes one.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights
from torchvision.ops import box_convert
from transformers import AutoConfig, AutoModelForObjectDetection, __version__, logging

from export.network import Network
from zoo.card import Licence, Recipe
from zoo.errors import ExportError
from zoo.labels import read_labels
from zoo.libraries import Description, described
from zoo.model_card import ModelCard, Normalise
from zoo.sources.hub import file_url, look_up, recall

# It would report what it reads, and which tensors it leaves aside; what it lacks is an error here.
_LOGGING: Any = logging  # which has no types
_LOGGING.set_verbosity_error()
_LOGGING.disable_progress_bar()

_FILES = {"weights": "model.safetensors", "config": "config.json"}
_TYPES = ("rt_detr", "rt_detr_v2", "d_fine", "rf_detr")
"""Of networks whose queries are objects, scored by sigmoids, as `config.json` names them."""
_CATEGORIES: list[str] = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
"""By COCO's category ids, of which 80 of 1 to 90 are in use. RF-DETR's head has a place for each."""
_COCO = "coco80"
_UNIT = Normalise()
_IMAGENET = Normalise((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


@dataclass(frozen=True)
class _Published:
    """The checkpoints of one architecture.

    Attributes:
        owner: of the repositories.
        title: for people.
        sides: of the input, in pixels, by the repository's name.
        normalise, resampling: of the images, as the authors' own library does it.
    """

    owner: str
    title: str
    sides: dict[str, int]
    normalise: Normalise = _UNIT
    resampling: Literal["pillow", "torch"] = "pillow"


_PUBLISHED = (
    _Published(
        "PekingU",
        "RT-DETR",
        dict.fromkeys((f"rtdetr_r{depth}vd" for depth in (18, 34, 50, 101)), 640)
        | dict.fromkeys((f"rtdetr_r{depth}vd_coco_o365" for depth in (18, 50, 101)), 640),
    ),
    _Published("PekingU", "RT-DETRv2", dict.fromkeys((f"rtdetr_v2_r{depth}vd" for depth in (18, 34, 50, 101)), 640)),
    _Published(
        "ustc-community",
        "D-FINE",
        dict.fromkeys((f"dfine-{size}-coco" for size in ("nano", "small", "medium", "large", "xlarge")), 640)
        | dict.fromkeys((f"dfine-{size}-obj2coco" for size in ("small", "medium", "large", "xlarge")), 640),
    ),
    _Published(
        "Roboflow",
        "RF-DETR",
        {"rf-detr-nano": 384, "rf-detr-small": 512, "rf-detr-medium": 576, "rf-detr-base": 560, "rf-detr-large": 704},
        _IMAGENET,
        "torch",
    ),
)
_MODELS = {name: published for published in _PUBLISHED for name in published.sides}


def build(card: ModelCard, files: dict[str, Path]) -> Network:
    """Build the network that `config` describes, and load `weights` into it as transformers does.

    A head of as many places as the card has labels answers in their order. One of 91 places has COCO's category ids, of
    which those of the 80 labels are kept.

    Raises:
        ExportError: `config` is of another architecture, or `weights` is no checkpoint of it; its head has another
            number of places, or it does not take the recipe's size.
    """
    if set(files) != set(_FILES):
        raise ExportError(
            f"{card.name}: a card of the family `transformers` has the sources `weights` (model.safetensors) and "
            f"`config` (config.json), but this one has {sorted(files)}"
        )
    with TemporaryDirectory(prefix="zooserve-") as folder:
        for source, name in _FILES.items():
            (Path(folder) / name).symlink_to(files[source].resolve())
        module = _read(folder, files)
    network = _Objects(module, _columns(card, module.config.num_labels)).eval()
    height, width = card.recipe.height, card.recipe.width
    try:
        with torch.no_grad():
            _fix_positions(network, height, width)
            network(torch.zeros(1, 3, height, width))
    except (RuntimeError, ValueError) as error:
        raise ExportError(f"{card.name}: the network does not take images of {height} x {width}: {error}") from error
    return Network(network, f"torch {torch.__version__}", versions={"transformers": __version__}, nms=False)


def _read(folder: str, files: dict[str, Path]) -> Any:
    """Read a checkpoint; no code of it is run, and no network is asked.

    Names of tensors change between versions of transformers, which renames those of older files as it reads them.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # of many kinds
        raise ExportError(
            f"{files['config']} does not describe a network of transformers {__version__}: {error}"
        ) from error
    if config.model_type not in _TYPES:
        raise ExportError(
            f"{files['config']} describes a network of the type {config.model_type!r}; expected one of "
            f"{', '.join(_TYPES)}. Exported as ONNX, others can be added with `zooserve add`"
        )
    # Both fix the size of the input; left out, they follow from it.
    config.eval_size = config.anchor_image_size = None
    try:
        module, found = AutoModelForObjectDetection.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:  # of many kinds
        raise ExportError(
            f"{files['weights']} is no checkpoint of what {files['config']} describes: {error}"
        ) from error
    if missing := sorted(found["missing_keys"]):
        raise ExportError(
            f"{files['weights']} is no checkpoint of what {files['config']} describes: it lacks "
            f"{', '.join(missing[:3])}{' and more' if len(missing) > 3 else ''}"
        )
    _let_export(module)
    return module


def _let_export(module: nn.Module) -> None:
    """Replace two names in the file of a network's class that `torch.export` and ONNX cannot take.

    There, the `len` of a tensor is a number, which fixes the batch, and a check of shapes is a node that ONNX has not.
    """
    names = vars(sys.modules[type(module).__module__])
    names["len"] = lambda value: value.shape[0] if isinstance(value, Tensor) else len(value)
    names["torch_compilable_check"] = lambda *_: None


def _columns(card: ModelCard, places: int) -> list[int]:
    """The places of the network's head in the order of the card's labels."""
    labels = read_labels(card.labels)
    if places == len(labels):
        return list(range(places))
    if places == len(_CATEGORIES) and card.labels == _COCO:
        return [_CATEGORIES.index(label) for label in labels]
    raise ExportError(
        f"{card.name}: the network's head has {places} places, and {card.labels!r} has {len(labels)} labels: name a "
        "file with a label for each as the card's `labels`"
    )


def _fix_positions(network: nn.Module, height: int, width: int) -> None:
    """Interpolate RF-DETR's embeddings of positions for the input's size once: ONNX has no such interpolation."""
    layers: Any = network.modules()
    for layer in layers:
        if hasattr(layer, "interpolate_pos_encoding"):
            patches = (height // layer.patch_size) * (width // layer.patch_size)
            alike = layer.position_embeddings.new_zeros(1, patches + 1, layer.position_embeddings.shape[2])
            fixed = layer.interpolate_pos_encoding(alike, height, width).clone()
            layer.interpolate_pos_encoding = lambda *_, fixed=fixed: fixed


class _Objects(nn.Module):
    """float32 [N, 3, H, W] -> `boxes` [N, Q, 4] xyxy in input pixels, and `scores` [N, Q, C] in 0..1."""

    def __init__(self, network: nn.Module, columns: list[int]) -> None:
        super().__init__()
        self.network = network
        self.columns = columns

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        answer = self.network(pixel_values=x)
        height, width = x.shape[2:]
        boxes = box_convert(answer.pred_boxes, "cxcywh", "xyxy")
        return {
            "boxes": boxes * boxes.new_tensor((width, height, width, height)),
            "scores": answer.logits[..., self.columns].sigmoid(),
        }


def names() -> list[str]:
    """Return the names of the repositories with detectors of these architectures."""
    return list(_MODELS)


def describe(name: str) -> Description | None:
    """Describe a published detector without its hub; None where there is none of that name.

    The authors say that the weights are under the Apache License; a card has what the hub says. Only the hub knows
    their size.
    """
    if name not in _MODELS:
        return None
    repository = _repository(name)
    if all(recall(repository, file) for file in _FILES.values()):
        return described(_card(name))  # what was looked up is kept, so the hub is not asked
    return Description(
        "detect",
        _title(name),
        "transformers",
        Licence("Apache-2.0", "Apache-2.0"),
        {source: file_url(repository, file) for source, file in _FILES.items()},
    )


def card_for(name: str) -> ModelCard | None:
    """Write the card of a published detector; None where there is none of that name.

    Its hub says which sha256 the weights have, and which licence. It has none of `config.json`, of which the first
    download is trusted.

    Raises:
        SourceError: no route to the hub, or it has no such file.
    """
    return _card(name) if name in _MODELS else None


def _card(name: str) -> ModelCard:
    published, repository = _MODELS[name], _repository(name)
    side = published.sides[name]
    files = {source: look_up(repository, file) for source, file in _FILES.items()}
    return ModelCard(
        name=name,
        version="1",
        task="detect",
        family="transformers",
        title=_title(name),
        labels=_COCO,
        licence=Licence("Apache-2.0", files["weights"].licence),
        recipe=Recipe(side, side, "stretch", resampling=published.resampling),
        sources={source: file.source for source, file in files.items()},
        homepage=f"https://huggingface.co/{repository}",
        normalise=published.normalise,
        tolerance={"boxes": 2e-2, "scores": 1e-3},  # deep networks add up float noise
    )


def _repository(name: str) -> str:
    return f"{_MODELS[name].owner}/{name}"


def _title(name: str) -> str:
    return f"{_MODELS[name].title}, {name} of {_MODELS[name].owner}, COCO"
