"""LibreYOLO's detectors: YOLOX, YOLOv9, RTMDet, PicoDet, RT-DETR, D-FINE and DEIM.

A card's options name LibreYOLO's `model` (`yolox`) and its `size` (`n`); its one source, `weights`, is a checkpoint of
LibreYOLO's. Where there is no card, `card_for` writes one for each size that LibreYOLO has.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from libreyolo import models as library
from libreyolo.models.base import BaseModel
from torch import Tensor, nn

from export.checkpoint import load, read_state_dict, unpickle
from export.network import Network
from export.options import FamilyOptions
from zoo.card import Licence, Nms, Recipe
from zoo.errors import ExportError
from zoo.labels import read_labels
from zoo.libraries import Description
from zoo.model_card import ModelCard, Normalise
from zoo.sources import address
from zoo.sources.hub import UNKNOWN, file_url, look_up, recall

# It builds a network before it is given weights, and would warn that they are missing.
logging.getLogger("libreyolo.models.base.model").setLevel(logging.ERROR)

_REGENERATED = ("decoder.anchors", "decoder.valid_mask", "_kp_active_mask")
"""Constants that depend on the input's size; some checkpoints hold them and some do not."""


def _corners(box: Tensor) -> Tensor:
    """Centre and size [N, A, 4] -> xyxy."""
    centre, half = box[..., :2], box[..., 2:] / 2
    return torch.cat((centre - half, centre + half), 2)


def _yolox(answer: Tensor) -> tuple[Tensor, Tensor]:
    """Beside the classes' scores it has one of there being an object at all."""
    return _corners(answer[..., :4]), answer[..., 4:5] * answer[..., 5:]


def _yolo9(answer: Tensor) -> tuple[Tensor, Tensor]:
    return _joined(answer.transpose(1, 2))


def _joined(answer: Tensor) -> tuple[Tensor, Tensor]:
    return answer[..., :4], answer[..., 4:]


def _transformer(answer: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Boxes of a DETR are shares of the input."""
    return _corners(answer["pred_boxes"]), answer["pred_logits"].sigmoid()


_UNIT = Normalise()
_BYTES_BGR = Normalise(std=(1.0, 1.0, 1.0), channels="bgr")
_IMAGENET = Normalise((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
_IMAGENET_BGR = Normalise(_IMAGENET.mean, _IMAGENET.std, "bgr")


@dataclass(frozen=True)
class _Detector:
    """What the sizes of a model have in common.

    Attributes:
        build: LibreYOLO's class of it.
        title: for people.
        licence: of the code that LibreYOLO adapted (its THIRD_PARTY_NOTICES.txt); its own is MIT.
        resize, normalise, resampling: as the checkpoints expect their images, and LibreYOLO prepares them.
        decode: the network's answer -> `boxes` [N, A, 4] xyxy and `scores` [N, A, C].
    """

    build: type[BaseModel]
    title: str
    licence: str
    resize: Literal["letterbox", "letterbox_top_left", "stretch"] = "stretch"
    normalise: Normalise = _UNIT
    decode: Callable[[Any], tuple[Tensor, Tensor]] = _transformer
    resampling: Literal["pillow", "opencv"] = "pillow"

    def recipe(self, side: int) -> Recipe:
        """The recipe of a square input. LibreYOLO rounds scaled sizes down, and an odd line of padding comes last."""
        if self.resize == "stretch":
            return Recipe(side, side, "stretch", resampling=self.resampling)
        how: Any = {"resampling": self.resampling, "rounding": "floor", "odd_padding": "after", "one_scale": True}
        return Recipe(side, side, self.resize, **how)

    @property
    def nms(self) -> bool:
        """A transformer answers with one box per object; the others owe it."""
        return self.decode is not _transformer

    @property
    def several_labels(self) -> bool:
        """Whether LibreYOLO gives a box several labels, which needs an export with `--class-scores`."""
        return self.decode is not _yolox


DETECTORS = {
    detector.build.FAMILY: detector
    for detector in (
        _Detector(library.LibreYOLOX, "YOLOX", "Apache-2.0", "letterbox_top_left", _BYTES_BGR, _yolox),
        _Detector(library.LibreYOLO9, "YOLOv9", "MIT", "letterbox", decode=_yolo9, resampling="opencv"),
        _Detector(library.LibreRTMDet, "RTMDet", "Apache-2.0", "letterbox_top_left", _IMAGENET_BGR, _joined),
        _Detector(library.LibrePICODET, "PicoDet", "Apache-2.0", "stretch", _IMAGENET, _joined, "opencv"),
        _Detector(library.LibreRTDETR, "RT-DETR", "Apache-2.0", resampling="opencv"),
        _Detector(library.LibreRTDETRv2, "RT-DETRv2", "Apache-2.0", resampling="opencv"),
        _Detector(library.LibreRTDETRv4, "RT-DETRv4", "Apache-2.0"),
        _Detector(library.LibreDFINE, "D-FINE", "Apache-2.0"),
        _Detector(library.LibreDEIM, "DEIM", "Apache-2.0"),
    )
}
_MODELS = {f"{model}_{size}": (model, size) for model, one in DETECTORS.items() for size in one.build.INPUT_SIZES}


class Options(FamilyOptions, frozen=True):
    """Of a card of this family; `build` says what they mean."""

    model: str = ""
    size: str = ""


def build(card: ModelCard, files: dict[str, Path]) -> Network:
    """Build the model and size of the card's options and load its `weights` into it, strictly.

    Options: `model` and `size`, as LibreYOLO names them.

    Raises:
        ExportError: no such model or size, or not a checkpoint of it.
    """
    name = f"{card.options.get('model')}_{card.options.get('size')}"
    if name not in _MODELS:
        raise ExportError(
            f"{card.name}: the options `model` and `size` give {name!r}, which is none of LibreYOLO "
            f"{version('libreyolo')}'s detectors: {', '.join(_MODELS)}"
        )
    model, size = _MODELS[name]
    detector = DETECTORS[model]
    path = files["weights"]
    state = read_state_dict(path)
    _check_model(path, model)
    # An empty state dict keeps LibreYOLO from downloading a backbone.
    classes = len(read_labels(card.labels))
    module: nn.Module = detector.build(model_path={}, size=size, nb_classes=classes, device="cpu").model
    own = module.state_dict()
    state.update({key: own[key] for key in _REGENERATED if key in own})
    for key in [key for key in state if key.endswith(".num_batches_tracked") and key not in own]:
        del state[key]  # of frozen layers: training's counters
    load(module, state, path, name)
    network = _Boxes(_fused(module), detector)
    return Network(
        network,
        f"torch {torch.__version__}",
        versions={"libreyolo": version("libreyolo")},
        nms=detector.nms,
        nms_options=Nms(0.25, 0.45, 300, multi_label=detector.several_labels, clip_first=True),  # of its `predict`
        evaluation=Nms(0.001, 0.6, 300, multi_label=detector.several_labels, clip_first=True),  # of its `val`
    )


def _check_model(path: Path, model: str) -> None:
    """Refuse a checkpoint that names another model: two models may have tensors of the same names and shapes."""
    checkpoint = unpickle(path)
    says = checkpoint.get("model_family")
    if says not in {None, model}:
        raise ExportError(f"{path} is a checkpoint of {says!r}, and the card's option `model` says {model!r}")


def _fused(module: Any) -> nn.Module:
    """Fold parallel branches and the layers that only training needs, as LibreYOLO does for its own exports."""
    with torch.no_grad():
        if hasattr(module, "fuse"):
            module.fuse()
        for part in list(module.modules()):
            if hasattr(part, "convert_to_deploy"):
                part.convert_to_deploy()
    if hasattr(module, "head"):
        module.head.export = True  # decoded, in one tensor
    network: nn.Module = module.eval()
    return network


class _Boxes(nn.Module):
    """A detector's answers: `boxes` [N, A, 4] xyxy in input pixels, and `scores` [N, A, C] in 0..1."""

    def __init__(self, network: nn.Module, detector: _Detector) -> None:
        super().__init__()
        self.network = network
        self.detector = detector

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        boxes, scores = self.detector.decode(self.network(x))
        if self.detector.decode is _transformer:
            height, width = x.shape[2:]
            boxes = boxes * boxes.new_tensor((width, height, width, height))
        return {"boxes": boxes, "scores": scores}


def names() -> list[str]:
    """Return the names of LibreYOLO's detectors, `<model>_<size>`."""
    return list(_MODELS)


def describe(name: str) -> Description | None:
    """Describe one of LibreYOLO's detectors without its hub; None where it has no `name`.

    Only the hub knows the licence and the size of the weights: both are unknown until a card was written.
    """
    if name not in _MODELS:
        return None
    model, size = _MODELS[name]
    detector = DETECTORS[model]
    file = _file(detector, size)
    known = recall(*file)
    return Description(
        "detect",
        f"{detector.title}-{size} of LibreYOLO, COCO",
        "libreyolo",
        Licence(detector.licence, known.licence if known else UNKNOWN),
        {"weights": address(known.source) if known else file_url(*file)},
        known.source.size if known else None,
    )


def _file(detector: _Detector, size: str) -> tuple[str, str]:
    """The repository and the name of a detector's weights."""
    name = f"{detector.build.FILENAME_PREFIX}{size}"
    return f"LibreYOLO/{name}", f"{name}{detector.build.WEIGHT_EXT}"


def card_for(name: str) -> ModelCard | None:
    """Write the card of one of LibreYOLO's detectors; None where it has no `name`.

    Its hub says which sha256 its file has, and which licence the weights have. RTMDet's and YOLOX's images lie in the
    input's corner as in LibreYOLO, and YOLOv9's in its middle, as its authors trained it: LibreYOLO puts them there for
    checkpoints that say so, and into the corner otherwise. Images that are made smaller are antialiased for the models
    for which LibreYOLO does it.

    Raises:
        SourceError: no route to the hub, or it has no such file.
    """
    if name not in _MODELS:
        return None
    model, size = _MODELS[name]
    detector = DETECTORS[model]
    side = detector.build.INPUT_SIZES[size]
    repository, file = _file(detector, size)
    weights = look_up(repository, file)
    return ModelCard(
        name=name,
        version="1",
        task="detect",
        family="libreyolo",
        title=f"{detector.title}-{size} of LibreYOLO, COCO",
        labels="coco80",
        licence=Licence(detector.licence, weights.licence),
        recipe=detector.recipe(side),
        sources={"weights": weights.source},
        homepage=f"https://huggingface.co/{repository}",
        normalise=detector.normalise,
        options={"model": model, "size": size},
        tolerance={"scores": 1e-3},
    )
