"""What the reference answers on sample photos: the golden answers that a service checks itself against at load.

`export.pipeline` asks for them after parity, and publishes nothing where they are not what the card expects.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torchvision.ops import batched_nms

from export.reference import Outputs
from zoo.card import Expectation, Golden, ModelCard, Prediction
from zoo.errors import ExportError
from zoo.hashing import sha256_of
from zoo.recipe import Placement, placement

TOP = 5
MIN_SCORE = 0.5
NMS_IOU = 0.45
MIN_AREA = 0.01
OPAQUE = 128  # of 255: from here on, a pixel counts as part of the salient object


class Photo(NamedTuple):
    """A sample photo: its name in the zoo, its file, and its pixels (mode RGB)."""

    name: str
    path: Path
    picture: Image.Image


def golden_answer(card: ModelCard, labels: Sequence[str], photo: Photo, outputs: Outputs) -> Golden:
    """Make the golden answer for a photo out of the reference's outputs for it (a batch of one).

    Raises:
        ExportError: the card expects something else on this photo.
    """
    found = predictions(card, labels, outputs, placement(card.recipe, *photo.picture.size))
    for expected in card.expect:
        if expected.photo == photo.name and not _met(card, expected, found):
            seen = ", ".join(f"{p.label} {_measure(p):.3f}" for p in found) or "nothing"
            raise ExportError(
                f"{card.name}: on the photo {photo.name!r} the card expects {_wish(card, expected)}, but the network "
                f"found {seen}. Check the card's recipe, normalisation, labels and checkpoint."
            )
    return Golden(f"{photo.name}{photo.path.suffix}", sha256_of(photo.path), found)


def predictions(card: ModelCard, labels: Sequence[str], outputs: Outputs, where: Placement) -> tuple[Prediction, ...]:
    """Turn the outputs for one picture into predictions on the picture itself, as `zoo.card.Golden` lists them.

    Args:
        card: gives the task.
        labels: class names by class id.
        outputs: of the served graph, for a batch of one picture.
        where: the picture lies in the graph's input.
    """
    one = {name: value[0] for name, value in outputs.items()}
    if card.task == "classify":
        order = np.argsort(-one["probabilities"], kind="stable")[:TOP]
        return tuple(Prediction(int(i), labels[i], score=float(one["probabilities"][i])) for i in order)
    if card.task == "detect":
        return _objects(one, labels, where)
    mask = (one["alpha"] >= OPAQUE).astype(np.uint8) if "alpha" in one else one["mask"]
    areas = np.bincount(on_picture(mask, where).ravel(), minlength=len(labels)) / (where.width * where.height)
    areas[0] = 0.0  # the background
    order = np.argsort(-areas, kind="stable")
    return tuple(Prediction(int(i), labels[i], area=float(areas[i])) for i in order if areas[i] >= MIN_AREA)


def _objects(one: Outputs, labels: Sequence[str], where: Placement) -> tuple[Prediction, ...]:
    sure = one["scores"] >= MIN_SCORE
    boxes, scores, classes = one["boxes"][sure], one["scores"][sure], one["classes"][sure]
    keep = batched_nms(torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(classes), NMS_IOU)
    offset = np.array([where.offset_x, where.offset_y] * 2)
    scale = np.array([where.scale_x, where.scale_y] * 2)
    limit = np.array([where.width, where.height] * 2)
    on_photo = np.clip((boxes - offset) / scale, 0, limit)
    return tuple(
        Prediction(int(classes[i]), labels[classes[i]], score=float(scores[i]), box=tuple(on_photo[i].tolist()))
        for i in keep.tolist()
    )


def on_picture(mask: npt.NDArray[Any], where: Placement) -> npt.NDArray[Any]:
    """Resize the part of the input that holds the picture to the picture's size, nearest neighbour.

    Args:
        mask: [H, W] over the graph's input.
        where: the picture lies in that input.

    Returns:
        [height, width] of the picture. What the recipe cut off takes the values at the input's edge.
    """
    rows = ((np.arange(where.height) + 0.5) * where.scale_y + where.offset_y).astype(int)
    columns = ((np.arange(where.width) + 0.5) * where.scale_x + where.offset_x).astype(int)
    resized: npt.NDArray[Any] = mask[np.ix_(rows.clip(0, mask.shape[0] - 1), columns.clip(0, mask.shape[1] - 1))]
    return resized


def _met(card: ModelCard, expected: Expectation, found: Sequence[Prediction]) -> bool:
    first = found[:1] if card.task == "classify" else found
    low, high = _range(card, expected)
    return any(p.label == expected.label and low <= _measure(p) <= high for p in first)


def _range(card: ModelCard, expected: Expectation) -> tuple[float, float]:
    return (expected.area or (MIN_AREA, 1.0)) if card.task == "segment" else (expected.score, 1.0)


def _measure(prediction: Prediction) -> float:
    """Return the score, or the area where a prediction has none."""
    return (prediction.area or 0.0) if prediction.score is None else prediction.score


def _wish(card: ModelCard, expected: Expectation) -> str:
    low, high = _range(card, expected)
    if card.task == "segment":
        return f"{expected.label!r} on {low:.0%} to {high:.0%} of the picture"
    return f"{expected.label!r} {'first, ' if card.task == 'classify' else ''}with a score of at least {low:g}"
