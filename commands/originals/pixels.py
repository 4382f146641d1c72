"""How torchvision, timm and LibreYOLO prepare images themselves. `answers` has what they answer."""

import inspect
import types
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from PIL import Image
from torchvision.models import get_model, get_model_weights
from torchvision.models.detection import transform

from commands.originals.differences import Pixels, Prepare
from export.families import torchvision, torchvision_detection
from zoo import catalog
from zoo.model_card import ModelCard, Normalise
from zoo.recipe import scaled_size

_TRANSFORM: Any = transform.GeneralizedRCNNTransform  # which has no types


class Original(NamedTuple):
    """An original library's preparation of images.

    Attributes:
        card: of the model, as it is served.
        reference: the library, with its version.
        prepare: returns [H, W, 3] in grey levels.
        tensor: the library's own input for a photo: what `prepare` says in grey levels; None: its network has none
            besides.
    """

    card: ModelCard
    reference: str
    prepare: Prepare
    tensor: Callable[[Pixels], torch.Tensor] | None = None


def torchvision_original(name: str) -> Original:
    """The transforms of torchvision's weights, or those in its detector, with the sizes of the served graph."""
    known = name in catalog.paths()
    card = catalog.find(name) if known else torchvision_detection.card_for(name) or torchvision.card_for(name)
    assert isinstance(card, ModelCard)  # noqa: S101 - they take images
    reference = f"torchvision {version('torchvision')}"
    if card.task == "detect":
        return Original(card, reference, partial(_in_detector, name, card))
    weights: Any = get_model_weights(name)
    preset = (weights.IMAGENET1K_V1 if known else weights.DEFAULT).transforms

    def tensor(photo: Pixels) -> torch.Tensor:
        x: torch.Tensor = preset()(Image.fromarray(photo))
        return x

    if card.task == "classify":
        return Original(card, reference, lambda photo: _grey_levels(tensor(photo), card.normalise), tensor)
    return Original(card, reference, partial(_in_segmenter, preset, card), tensor)


def _in_segmenter(preset: Any, card: ModelCard, photo: Pixels) -> Pixels:
    """One size of the graph: the long side has what torchvision gives the short one."""
    height, width = photo.shape[:2]
    columns, rows = scaled_size(card.recipe, width, height)
    own = preset()
    own.resize_size = [rows, columns]
    scaled = _grey_levels(own(Image.fromarray(photo)), card.normalise)
    canvas = np.zeros((card.recipe.height, card.recipe.width, 3)) + card.recipe.pad
    top, left = round((canvas.shape[0] - rows) / 2), round((canvas.shape[1] - columns) / 2)
    canvas[top : top + rows, left : left + columns] = scaled
    return canvas


def fixed_size(own: Any, card: ModelCard) -> Any:
    """Let a detector's transform make one size, that of the graph: the short side is no longer than the long one."""
    if card.recipe.resize == "stretch":
        return own
    return _TRANSFORM(card.recipe.height, card.recipe.width, own.image_mean, own.image_std)


def _in_detector(name: str, card: ModelCard, photo: Pixels) -> Pixels:
    own = fixed_size(get_model(name, weights=None, weights_backbone=None).transform, card)
    images = own.eval()([as_tensor(photo)])[0].tensors[0]
    canvas = torch.zeros(3, card.recipe.height, card.recipe.width)  # a batch is padded with zeros to a multiple of 32
    canvas[:, : images.shape[1], : images.shape[2]] = images
    return _grey_levels(canvas, card.normalise)


def as_tensor(photo: Pixels) -> torch.Tensor:
    """A photo as torchvision's detectors take it: float32 [3, H, W] in 0..1."""
    return torch.from_numpy(photo.copy()).permute(2, 0, 1) / 255


def timm_original(name: str) -> Original:
    """The transform that timm makes of a checkpoint's configuration."""
    import timm as library  # noqa: PLC0415 - an extra

    from export.families import timm  # noqa: PLC0415 - likewise

    card = timm.card_for(name)
    assert card is not None  # noqa: S101 - a name of timm's
    data: Any = library.data
    config: Any = library.get_pretrained_cfg(name)
    own = data.create_transform(**data.resolve_data_config(pretrained_cfg=config.to_dict()))

    def tensor(photo: Pixels) -> torch.Tensor:
        x: torch.Tensor = own(Image.fromarray(photo))
        return x

    reference = f"timm {library.__version__}"
    return Original(card, reference, lambda photo: _grey_levels(tensor(photo), card.normalise), tensor)


def _grey_levels(x: torch.Tensor, normalise: Normalise) -> Pixels:
    return _in_grey_levels(x.permute(1, 2, 0).numpy(), normalise)


def _in_grey_levels(x: Pixels, normalise: Normalise) -> Pixels:
    levels: Pixels = x * np.array(normalise.std) + np.array(normalise.mean)
    return levels


def libreyolo_original(model: str) -> Original:
    """What one of LibreYOLO's models, in its first size, makes of an image."""
    from export.families.libreyolo import DETECTORS  # noqa: PLC0415 - an extra

    detector = DETECTORS[model]
    size, side = next(iter(detector.build.INPUT_SIZES.items()))
    card = msgspec.structs.replace(
        _BLANK,
        name=f"{model}_{size}",
        family="libreyolo",
        options={"model": model, "size": size},
        recipe=detector.recipe(side),
        normalise=detector.normalise,
        expect=(),
        nms=None,
        evaluation=None,
    )
    return Original(card, f"libreyolo {version('libreyolo')}", partial(_libreyolo, detector, side))


_BLANK: ModelCard = catalog.find("yolov8n")  # type: ignore[assignment]


def _libreyolo(detector: Any, side: int, photo: Pixels) -> Pixels:
    get = detector.build._get_preprocess_numpy
    centred = (types.SimpleNamespace(letterbox_pad="center"),)
    own = get(*(centred if inspect.signature(get).parameters else ()))
    x = np.asarray(own(photo, side)[0])
    x = (x[0] if x.ndim == 4 else x).transpose(1, 2, 0)
    normalise = detector.normalise
    return _in_grey_levels(x[..., ::-1] if normalise.channels == "bgr" else x, normalise)
