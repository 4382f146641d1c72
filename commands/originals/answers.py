"""What torchvision, timm and LibreYOLO answer themselves, beside served answers.

Weights are real where a package has them (mobilenet_v2), else random ones of the original library, of one scale.
"""

from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.models import get_model

from commands.originals.differences import (
    Difference,
    Found,
    Pixels,
    compare_classes,
    compare_modes,
    compare_objects,
    compare_scores,
    photos,
    squared,
)
from commands.originals.pixels import (
    Original,
    as_tensor,
    fixed_size,
    libreyolo_original,
    timm_original,
    torchvision_original,
)
from commands.originals.untrained import CATEGORIES, libreyolo_detector, pixel_network, torchvision_detector
from export.checkpoint import read_state_dict
from service.commands.load import Loaded
from zoo import catalog
from zoo.card import Nms
from zoo.files import sha256_of
from zoo.labels import read_labels
from zoo.model_card import ModelCard, Source
from zoo.recipe import apply_exact
from zoo.sources import fetch_all

TORCHVISION = ("mobilenet_v2", "efficientnet_b0", "lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large")
TORCHVISION_DETECTORS = (
    "ssdlite320_mobilenet_v3_large",
    "ssd300_vgg16",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "retinanet_resnet50_fpn",
    "fcos_resnet50_fpn",
)
TIMM = ("mobilenetv3_large_100.ra_in1k",)
LIBREYOLO = ("yolox", "yolo9", "rtmdet", "picodet", "rtdetr", "rtdetrv2", "rtdetrv4", "dfine", "deim")
_NOISE = {"boxes": 0.1, "scores": 1e-3}
"""Tolerances of parity: random weights multiply float noise."""


def compare_torchvision(name: str, folder: Path) -> list[Difference]:
    """Compare a classifier or a network of classes per pixel of torchvision's, which is exported into a folder."""
    original = torchvision_original(name)
    torch.manual_seed(0)
    if original.card.task == "segment":
        network: nn.Module = get_model(name, weights=None, weights_backbone=None).eval()
        return _classes_per_pixel(original, network, folder)
    return _probabilities(original, get_model(name, weights=None).eval(), folder)


def compare_timm(name: str, folder: Path) -> list[Difference]:
    """Compare a classifier of timm's, with random weights."""
    import timm as library  # noqa: PLC0415 - an extra

    torch.manual_seed(0)
    architecture: Any = library.create_model(name.partition(".")[0], pretrained=False).eval()
    return _probabilities(timm_original(name), architecture, folder)


def _probabilities(original: Original, network: nn.Module, folder: Path) -> list[Difference]:
    card = _with_weights(original.card, network, folder)
    assert original.tensor is not None  # noqa: S101 - classifiers' transforms make one
    with torch.no_grad():
        expected = [network(original.tensor(photo)[None])[0].softmax(0).numpy() for photo in photos()]
    return compare_modes(card, folder, original.reference, partial(compare_scores, expected), original.prepare)


def _classes_per_pixel(original: Original, network: nn.Module, folder: Path) -> list[Difference]:
    card = _with_weights(original.card, network, folder)
    assert original.tensor is not None  # noqa: S101 - as above
    images = squared(card)
    with torch.no_grad():
        expected = [network(original.tensor(photo)[None])["out"][0].argmax(0).numpy() for photo in images]
    return compare_modes(card, folder, original.reference, partial(compare_classes, images, expected), original.prepare)


def _with_weights(card: ModelCard, network: nn.Module, folder: Path) -> ModelCard:
    """Load the weights of the zoo's card, or give random ones to the network and to the card."""
    if card.name in catalog.paths():
        network.load_state_dict(read_state_dict(fetch_all(card.sources)["weights"]))
        return card
    images = [apply_exact(card.recipe, Image.fromarray(photo)) for photo in squared(card)[:4]]
    pixel_network(network, card, images, len(read_labels(card.labels)))
    return saved(card, network, folder)


def saved(card: ModelCard, network: nn.Module, folder: Path) -> ModelCard:
    """Return the card with a network's weights, which are written into the folder, as its source."""
    torch.save(network.state_dict(), path := folder / f"{card.name}.pth")
    return msgspec.structs.replace(card, sources={"weights": Source(file=str(path), sha256=sha256_of(path))})


def untrained_detector(name: str, folder: Path) -> tuple[ModelCard, Any]:
    """Return the card of a detector of torchvision's with random weights, and torchvision's own detector."""
    card = torchvision_original(name).card
    model = torchvision_detector(card, torch.stack([as_tensor(photo) for photo in squared(card)[:4]]))
    model.transform = fixed_size(model.transform, card).eval()
    return msgspec.structs.replace(saved(card, model, folder), tolerance=_NOISE), model


def compare_detector(name: str, folder: Path) -> list[Difference]:
    """Compare a detector of torchvision's, with random weights.

    It is compared on the photos, whose pixels torchvision resamples in floats, and on photos of the graph's size.
    """
    original = torchvision_original(name)
    card, model = untrained_detector(name, folder)

    same: list[Difference] = []

    def compare(difference: Difference, served: Loaded) -> None:
        # Torchvision's own threshold is that of its evaluation.
        getattr(model, "roi_heads", model).score_thresh = served.model.card.nms_options.score_threshold
        objects = partial(torchvision_objects, model)
        compare_objects(difference, served, objects)
        same.append(Difference(card.name, f"{original.reference}, the same pixels", difference.mode, 0.0))
        compare_objects(same[-1], served, objects, squared(card))

    return compare_modes(card, folder, original.reference, compare, original.prepare) + same


def torchvision_objects(model: Any, photo: Pixels) -> list[Found] | None:
    """What torchvision's own detector finds, best first, with the class ids of `coco80`.

    Boxes without an area, clipped to the photo's edge, are left out; a random network has many.
    """
    try:
        with torch.no_grad():
            (found,) = model([as_tensor(photo)])
    except (ValueError, RuntimeError):  # a side of 0 pixels, where a thin image is scaled to fit
        return None
    labels = read_labels("coco80")
    rows = zip(found["labels"].tolist(), found["scores"].tolist(), found["boxes"].tolist(), strict=True)
    return [
        Found(labels.index(CATEGORIES[label]), score, (x0, y0, x1, y1))
        for label, score, (x0, y0, x1, y1) in rows
        if x1 > x0 and y1 > y0
    ]


def compare_libreyolo(model: str, folder: Path) -> list[Difference]:
    """Compare a model of LibreYOLO's, in its first size, with random weights."""
    from libreyolo.utils.serialization import wrap_libreyolo_checkpoint  # noqa: PLC0415 - an extra

    original = libreyolo_original(model)
    card, size = original.card, str(original.card.options["size"])
    wrapper = libreyolo_detector(model, size, squared(card)[:4])
    path = folder / f"{card.name}.pt"
    weights = wrapper.model.state_dict()
    torch.save(wrap_libreyolo_checkpoint(weights, model_family=model, size=size, task="detect", nc=80), path)
    sources = {"weights": Source(file=str(path), sha256=sha256_of(path))}
    card = msgspec.structs.replace(card, sources=sources, class_scores=model != "yolox", tolerance=_NOISE)
    wrapper.letterbox_pad = "center"  # of yolo9; the others have none

    def compare(difference: Difference, served: Loaded) -> None:
        compare_objects(difference, served, partial(_libreyolo_objects, wrapper, served.model.card.nms_options))

    return compare_modes(card, folder, original.reference, compare, original.prepare)


def _libreyolo_objects(wrapper: Any, nms: Nms, photo: Pixels) -> list[Found] | None:
    try:
        boxes = wrapper.predict(
            Image.fromarray(photo), conf=nms.score_threshold, iou=nms.iou_threshold, max_det=nms.max_detections
        ).boxes
    except (ValueError, RuntimeError):  # as above
        return None
    height, width = photo.shape[:2]
    xyxy = np.asarray(boxes.xyxy).reshape(-1, 4).clip(0, (width, height, width, height))
    seen = ((xyxy[:, 2:] - xyxy[:, :2]) > 0).all(1)
    rows = zip(np.asarray(boxes.cls).astype(int).tolist(), np.asarray(boxes.conf).tolist(), xyxy.tolist(), strict=True)
    return [Found(one, score, tuple(box)) for (one, score, box), whole in zip(rows, seen, strict=True) if whole]
