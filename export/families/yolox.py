"""YOLOX, by name: Megvii's own checkpoints, yolox-nano to yolox-x.

Needs the module `yolox` of Megvii's code, as pixeltable-yolox keeps it (Apache-2.0). A card's option `model` names a
size; its one source, `weights`, is a checkpoint of that code. Where there is no card, `card_for` writes one.
"""

from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert
from yolox.config import YoloxConfig

from export.checkpoint import load, read_state_dict
from export.network import Network
from export.options import FamilyOptions
from zoo.card import Licence, Nms, Recipe
from zoo.errors import ExportError
from zoo.labels import read_labels
from zoo.libraries import Description
from zoo.model_card import ModelCard, Normalise
from zoo.sources import address
from zoo.sources.pins import first_download
from zoo.sources.releases import look_up, recall, trusted

_REPOSITORY, _TAG = "Megvii-BaseDetection/YOLOX", "0.1.1rc0"
_SIDES = {"yolox-nano": 416, "yolox-tiny": 416, "yolox-s": 640, "yolox-m": 640, "yolox-l": 640, "yolox-x": 640}
_LICENCE = Licence("Apache-2.0", "Apache-2.0")
_STRIDE = 32


class Options(FamilyOptions, frozen=True):
    """Of a card of this family; `build` says what they mean."""

    model: str = ""


def build(card: ModelCard, files: dict[str, Path]) -> Network:
    """Build the network of the card's option and load its `weights` into it, strictly.

    Options: `model`, a name of YOLOX's, such as yolox-s. The number of classes is that of the card's labels.

    Raises:
        ExportError: no such model, not a checkpoint of it, or an input size that it does not take.
    """
    model = str(card.options.get("model", ""))
    if model not in _SIDES:
        raise ExportError(f"{card.name}: the option `model` is {model!r}; expected one of {', '.join(_SIDES)}")
    height, width = card.recipe.height, card.recipe.width
    if height % _STRIDE or width % _STRIDE:
        raise ExportError(f"{card.name}: {model} needs sides that {_STRIDE} divides, not {height} x {width}")
    config = YoloxConfig.get_named_config(model)
    config.num_classes = len(read_labels(card.labels))
    module = config.get_model()
    load(module, read_state_dict(files["weights"]), files["weights"], model)
    return Network(
        _Candidates(module).eval(),
        f"torch {torch.__version__}",
        versions={"pixeltable-yolox": version("pixeltable-yolox")},
        nms_options=Nms(iou_threshold=config.nmsthre),
        evaluation=Nms(config.test_conf, config.nmsthre),
    )


class _Candidates(nn.Module):
    """float32 [N, 3, H, W] -> `boxes` [N, A, 4] xyxy in input pixels, and `scores` [N, A, C] in 0..1."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        answer = self.network(x)  # centre, size, the score of there being an object, and those of the classes
        return {"boxes": box_convert(answer[..., :4], "cxcywh", "xyxy"), "scores": answer[..., 4:5] * answer[..., 5:]}


def names() -> list[str]:
    """Return the names of YOLOX's sizes."""
    return list(_SIDES)


def describe(name: str) -> Description | None:
    """Describe one of Megvii's checkpoints without the network; None where there is none of that name."""
    if name not in _SIDES:
        return None
    source = recall(_REPOSITORY, _TAG, _file(name)) or trusted(_REPOSITORY, _TAG, _file(name))
    trust = first_download(source)
    return Description(
        "detect",
        _title(name),
        "yolox",
        _LICENCE,
        {"weights": address(source)},
        source.size,
        first_downloads={} if trust is None else {"weights": trust},
    )


def card_for(name: str) -> ModelCard | None:
    """Write the card of one of Megvii's checkpoints; None where there is none of that name.

    GitHub is asked for the sha256 of its file; where it gives none, the first download is trusted. Images are prepared
    as Megvii's evaluation does: in blue, green, red, which is what the checkpoints expect (pixeltable-yolox hands them
    RGB), without antialiasing, in the top left corner.

    Raises:
        SourceError: the publisher has no such file any more.
    """
    if name not in _SIDES:
        return None
    side = _SIDES[name]
    return ModelCard(
        name=name,
        version="1",
        task="detect",
        family="yolox",
        title=_title(name),
        labels="coco80",
        licence=_LICENCE,
        recipe=Recipe(side, side, "letterbox_top_left", resampling="opencv", rounding="floor", one_scale=True),
        sources={"weights": look_up(_REPOSITORY, _TAG, _file(name))},
        homepage=f"https://github.com/{_REPOSITORY}",
        normalise=Normalise(std=(1.0, 1.0, 1.0), channels="bgr"),
        options={"model": name},
        tolerance={"boxes": 2e-2, "scores": 1e-3},
    )


def _file(name: str) -> str:
    return f"{name.replace('-', '_')}.pth"


def _title(name: str) -> str:
    return f"YOLOX-{name.removeprefix('yolox-')} of Megvii, COCO"
