"""What the reference answers on sample photos: the golden answers that a service checks itself against at load.

`export.pipeline` asks for them after parity, and publishes nothing where they are not what the card expects.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812, the name that everyone knows it by
from PIL import Image
from torchvision.ops import batched_nms

from export.reference import Outputs
from zoo import rotated
from zoo.card import Recipe
from zoo.errors import ExportError
from zoo.files import sha256_of
from zoo.model_card import Expectation, ModelCard
from zoo.recipe import Placement, placement
from zoo.served_card import Golden, Prediction

TOP = 5
MIN_SCORE = 0.5
NMS_IOU = 0.45
MIN_AREA = 0.01
OPAQUE = 128  # of 255: from here on, a pixel counts as part of the salient object


class Photo(NamedTuple):
    """A sample photo: its name in the zoo, its file, and its pixels (mode RGB)."""

    name: str
    path: Path
    image: Image.Image


def golden_answer(card: ModelCard, labels: Sequence[str], photo: Photo, outputs: Outputs) -> Golden:
    """Make the golden answer for a photo out of the reference's outputs for it (a batch of one).

    Raises:
        ExportError: the card expects something else on this photo.
    """
    found = predictions(card, labels, outputs, placement(card.recipe, *photo.image.size))
    for expected in card.expect:
        if expected.photo == photo.name and not _met(card, expected, found):
            seen = ", ".join(f"{p.label} {_measure(p):.3f}" for p in found) or "nothing"
            wanted = _wanted(card, expected, objects="boxes" in outputs)
            raise ExportError(
                f"{card.name}: on the photo {photo.name!r} the card expects {wanted}, but the network found {seen}. "
                "Check the card's recipe, normalisation, labels and checkpoint."
            )
    return Golden(f"{photo.name}{photo.path.suffix}", sha256_of(photo.path), found)


def predictions(card: ModelCard, labels: Sequence[str], outputs: Outputs, where: Placement) -> tuple[Prediction, ...]:
    """Turn the outputs for one image into predictions on the image itself, as `zoo.served_card.Golden` lists them.

    Args:
        card: gives the task and the input's size.
        labels: class names by class id.
        outputs: of the served graph, for a batch of one image.
        where: place of the image in the graph's input.
    """
    one = {name: value[0] for name, value in outputs.items()}
    if card.task == "classify":
        order = np.argsort(-one["probabilities"], kind="stable")[:TOP]
        return tuple(Prediction(int(i), labels[i], score=float(one["probabilities"][i])) for i in order)
    if card.task == "obb":
        return _rotated(labels, one, where)
    if "boxes" in one:
        return _objects(card, labels, one, where)
    mask = (one["alpha"] >= OPAQUE).astype(np.uint8) if "alpha" in one else one["mask"]
    areas = np.bincount(on_image(mask, where).ravel(), minlength=len(labels)) / (where.width * where.height)
    areas[0] = 0.0  # the background
    order = np.argsort(-areas, kind="stable")
    return tuple(Prediction(int(i), labels[i], area=float(areas[i])) for i in order if areas[i] >= MIN_AREA)


def _rotated(labels: Sequence[str], one: Outputs, where: Placement) -> tuple[Prediction, ...]:
    sure = one["scores"] >= MIN_SCORE
    boxes, scores, classes = one["boxes"][sure], one["scores"][sure], one["classes"][sure]
    on_photo = _on_photo(rotated.corners(boxes), where)
    return tuple(
        Prediction(int(classes[i]), labels[classes[i]], score=float(scores[i]), corners=_points(on_photo[i]))
        for i in rotated.suppress(boxes, classes, NMS_IOU).tolist()
    )


def _on_photo(points: npt.NDArray[Any], where: Placement) -> npt.NDArray[Any]:
    """Take points (x, y) [..., 2] from the graph's input to the photo."""
    offset, scale = (where.offset_x, where.offset_y), where.box_scale
    return np.asarray((points - np.array(offset)) / np.array(scale))


def _points(values: npt.NDArray[Any]) -> tuple[Any, ...]:
    return tuple(map(tuple, values.tolist()))


def _objects(card: ModelCard, labels: Sequence[str], one: Outputs, where: Placement) -> tuple[Prediction, ...]:
    sure = one["scores"] >= MIN_SCORE
    boxes, scores, classes = one["boxes"][sure], one["scores"][sure], one["classes"][sure]
    on_photo = _on_photo(boxes.reshape(-1, 2, 2), where).clip(0, (where.width, where.height)).reshape(-1, 4)
    # Clipped to the photo, boxes beside it have no area: no answer has them.
    answered = np.all(on_photo[:, 2:] > on_photo[:, :2], axis=1)
    # Boxes may be clipped before suppression or after it, and have one label or several, as the card says: what stays
    # either way is surely answered.
    answered &= _stays(boxes, scores, classes) & _stays(on_photo, scores, classes)
    if "class_scores" in one:
        every = one["class_scores"][sure]
        ranks, kinds = np.nonzero(every >= MIN_SCORE)
        own = kinds == classes[ranks]
        for corners in (boxes, on_photo):
            kept = _stays(corners[ranks], every[ranks, kinds], kinds)
            answered[ranks[own & ~kept]] = False

    def pose(i: int) -> tuple[Any, ...] | None:
        if "keypoints" not in one:
            return None
        points = one["keypoints"][sure][i]
        placed = _on_photo(points[:, :2], where).clip(0, (where.width, where.height))
        return _points(np.concatenate([placed, points[:, 2:]], axis=1))

    def area(i: int) -> float | None:
        if "prototypes" not in one:
            return None
        mask = instance_mask(one["coefficients"][sure][i], one["prototypes"], boxes[i], card.recipe)
        return float(on_image(mask, where).mean())

    return tuple(
        Prediction(
            int(classes[i]),
            labels[classes[i]],
            score=float(scores[i]),
            box=tuple(on_photo[i].tolist()),
            area=area(i),
            keypoints=pose(i),
        )
        for i in np.flatnonzero(answered).tolist()
    )


def _stays(boxes: npt.NDArray[Any], scores: npt.NDArray[Any], classes: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Say which boxes [K, 4] non-maximum suppression leaves: bool [K]."""
    stays = np.zeros(len(boxes), np.bool_)
    tensors = (torch.from_numpy(values) for values in (boxes, scores.astype(boxes.dtype), classes))
    stays[batched_nms(*tensors, NMS_IOU).numpy()] = True
    return stays


def instance_mask(
    coefficients: npt.NDArray[np.float32], prototypes: npt.NDArray[np.float32], box: npt.NDArray[np.float32], to: Recipe
) -> npt.NDArray[np.bool_]:
    """Put an object's mask together as YOLACT does (Bolya et al. 2019, section 3.3), by PyTorch's interpolation.

    Args:
        coefficients: [M], the object's.
        prototypes: [M, h, w].
        box: the object's, xyxy in input pixels.
        to: gives the input's size.

    Returns:
        Where the sigmoid of the weighted sum is over 0.5 and a pixel's centre in the box, [H, W] over the input.
    """
    sums = torch.from_numpy(np.tensordot(coefficients, prototypes, 1))
    size = (to.height, to.width)
    scaled = F.interpolate(sums[None, None], size, mode="bilinear", align_corners=False)[0, 0].sigmoid().numpy()
    x, y = np.arange(to.width) + 0.5, np.arange(to.height)[:, None] + 0.5
    x0, y0, x1, y1 = box
    inside: npt.NDArray[np.bool_] = (scaled > 0.5) & (x0 <= x) & (x < x1) & (y0 <= y) & (y < y1)
    return inside


def on_image(mask: npt.NDArray[Any], where: Placement) -> npt.NDArray[Any]:
    """Resize the part of the input that holds the image to the image's size, nearest neighbour.

    Args:
        mask: [H, W] over the graph's input.
        where: place of the image in that input.

    Returns:
        [height, width] of the image. What the recipe cut off takes the values at the input's edge.
    """
    rows = ((np.arange(where.height) + 0.5) * where.scale_y + where.offset_y).astype(int)
    columns = ((np.arange(where.width) + 0.5) * where.scale_x + where.offset_x).astype(int)
    resized: npt.NDArray[Any] = mask[np.ix_(rows.clip(0, mask.shape[0] - 1), columns.clip(0, mask.shape[1] - 1))]
    return resized


def _met(card: ModelCard, expected: Expectation, found: Sequence[Prediction]) -> bool:
    first = found[:1] if card.task == "classify" else found
    return any(p.label == expected.label and _fits(p, expected) for p in first)


def _fits(prediction: Prediction, expected: Expectation) -> bool:
    """Whether a prediction's score, and its area, are as they are expected, where it has them."""
    low, high = expected.area or ((MIN_AREA, 1.0) if prediction.score is None else (0.0, 1.0))
    return (prediction.score is None or prediction.score >= expected.score) and (
        prediction.area is None or low <= prediction.area <= high
    )


def _measure(prediction: Prediction) -> float:
    """Return the score, or the area where a prediction has none."""
    return (prediction.area or 0.0) if prediction.score is None else prediction.score


def _wanted(card: ModelCard, expected: Expectation, *, objects: bool) -> str:
    low, high = expected.area or (MIN_AREA, 1.0)
    on = f" on {low:.0%} to {high:.0%} of the image"
    if card.task == "segment" and not objects:
        return f"{expected.label!r}{on}"
    first = "first, " if card.task == "classify" else ""
    covers = on if card.task == "segment" and expected.area else ""
    return f"{expected.label!r} {first}with a score of at least {expected.score:g}{covers}"
