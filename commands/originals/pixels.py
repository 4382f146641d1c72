"""How torchvision, timm and LibreYOLO prepare images themselves."""

import inspect
import types
from collections.abc import Iterable
from functools import partial
from typing import Any

import msgspec
import numpy as np
import torch
from PIL import Image
from torchvision.models import get_model, get_model_weights
from torchvision.models.detection import transform

from commands.originals.differences import Pixels, Prepare
from export.families import timm, torchvision, torchvision_detection
from zoo import catalog
from zoo.model_card import ModelCard, Normalise

_TRANSFORM: Any = transform.GeneralizedRCNNTransform  # which has no types
TORCHVISION_DETECTORS = ("ssdlite320_mobilenet_v3_large", "retinanet_resnet50_fpn")
TORCHVISION = ("mobilenet_v2", "vit_b_16")
TIMM = ("mobilenetv3_large_100.ra_in1k",)


def torchvision_pixels(name: str) -> tuple[ModelCard, str, Prepare]:
    """The transforms of torchvision's weights, or those in its detector, with the sizes of the served graph."""
    card = torchvision_detection.card_for(name) or torchvision.card_for(name)
    assert card is not None  # noqa: S101 - the names above are torchvision's
    weights: Any = get_model_weights(name).DEFAULT
    if card.task == "classify":
        transforms = weights.transforms()
        return card, "torchvision", lambda photo: _grey_levels(transforms(Image.fromarray(photo)), card.normalise)
    own: Any = get_model(name, weights=None, weights_backbone=None).transform
    side = card.recipe.height
    if card.recipe.resize != "stretch":  # one size of the graph: the short side is no longer than the long one
        own = _TRANSFORM(side, side, own.image_mean, own.image_std)

    def padded(photo: Pixels) -> Pixels:
        images = own.eval()([torch.from_numpy(photo.copy()).permute(2, 0, 1) / 255])[0].tensors[0]
        canvas = torch.zeros(3, side, side)  # a batch is padded with zeros to a multiple of 32
        canvas[:, : images.shape[1], : images.shape[2]] = images
        return _grey_levels(canvas, card.normalise)

    return card, "torchvision", padded


def timm_pixels(name: str) -> tuple[ModelCard, str, Prepare]:
    """The transform that timm makes of a checkpoint's configuration."""
    import timm as library  # noqa: PLC0415 - an extra

    card = timm.card_for(name)
    assert card is not None  # noqa: S101 - a name of timm's
    data: Any = library.data
    config: Any = library.get_pretrained_cfg(name)
    own = data.create_transform(**data.resolve_data_config(pretrained_cfg=config.to_dict()))
    return card, f"timm {library.__version__}", lambda photo: _grey_levels(own(Image.fromarray(photo)), card.normalise)


def _grey_levels(x: torch.Tensor, normalise: Normalise) -> Pixels:
    return _in_grey_levels(x.permute(1, 2, 0).numpy(), normalise)


def _in_grey_levels(x: Pixels, normalise: Normalise) -> Pixels:
    levels: Pixels = x * np.array(normalise.std) + np.array(normalise.mean)
    return levels


def libreyolo_pixels() -> Iterable[tuple[ModelCard, str, Prepare]]:
    """What LibreYOLO's models make of an image, one size of each."""
    from export.families import libreyolo  # noqa: PLC0415 - an extra

    for model, detector in libreyolo.DETECTORS.items():
        side = next(iter(detector.build.INPUT_SIZES.values()))
        card = msgspec.structs.replace(_BLANK, name=model, recipe=detector.recipe(side), normalise=detector.normalise)
        yield card, "libreyolo", partial(_libreyolo, detector, side)


_BLANK: ModelCard = catalog.find("yolov8n")  # type: ignore[assignment]


def _libreyolo(detector: Any, side: int, photo: Pixels) -> Pixels:
    get = detector.build._get_preprocess_numpy
    centred = (types.SimpleNamespace(letterbox_pad="center"),)
    own = get(*(centred if inspect.signature(get).parameters else ()))
    x = np.asarray(own(photo, side)[0])
    x = (x[0] if x.ndim == 4 else x).transpose(1, 2, 0)
    normalise = detector.normalise
    return _in_grey_levels(x[..., ::-1] if normalise.channels == "bgr" else x, normalise)
