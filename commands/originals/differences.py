"""How far the answers and the prepared pixels of a served model are from its original's, photo by photo."""

import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from msgspec import Struct
from PIL import Image

from export.photos import PARITY_PHOTOS
from export.pipeline import export_model
from service.commands.load import Loaded, load_model
from service.models.selftest import iou
from service.results import Instance
from service.vision.masks import decode
from service.vision.resize import prepare
from zoo import catalog
from zoo.model_card import ModelCard
from zoo.recipe import apply_exact
from zoo.store import Store

Pixels = npt.NDArray[Any]
Prepare = Callable[[Pixels], Pixels]

SIZES = ((641, 640), (1919, 1080), (333, 1000), (1, 4000))
"""Width and height in pixels: sizes that round badly."""
OPAQUE = 128
"""Of 255: from here on, a pixel counts as part of an object."""
_ALLOWED = 1e-3  # difference of scores: so near the threshold, an object may be missing
_THIN = 0.1  # pixels
_SAME = 0.5  # IoU from which on two boxes of one class are of one object


class Difference(Struct, omit_defaults=True):
    """The largest differences between a served model and its original, over all photos and sizes.

    Attributes:
        pixels: of the prepared image, in grey levels.
        refused: number of images that the original cannot prepare, since a side would have less than a pixel.
        objects: number of objects of the original; `missing` of them were not found.
        score: of an object.
        box: of an object's edge, in pixels of the photo.
        mask: the smallest IoU of an object's masks.
    """

    model: str
    reference: str
    mode: str
    pixels: float
    refused: int = 0
    objects: int | None = None
    missing: int | None = None
    score: float | None = None
    box: float | None = None
    mask: float | None = None


class Found(Struct):
    """An object in the original's answer. `mask` is bool [height, width] of the photo."""

    class_id: int
    score: float
    box: tuple[float, ...]
    mask: npt.NDArray[np.bool_] | None = None


def photos() -> Iterable[Pixels]:
    """The sample photos as they are, and one of them in all of `SIZES`: uint8 [H, W, 3] RGB."""
    for name in PARITY_PHOTOS:
        yield np.asarray(Image.open(catalog.sample(name)).convert("RGB"))
    photo = Image.open(catalog.sample(PARITY_PHOTOS[0])).convert("RGB")
    for size in SIZES:
        yield np.asarray(photo.resize(size))


def compare_pixels(card: ModelCard, reference: str, original: Prepare) -> list[Difference]:
    """Compare prepared images with those of an original that returns [H, W, 3] in grey levels."""
    found = []
    for mode in ("exact", "fast"):
        largest, refused = 0.0, 0
        for photo in photos():
            try:
                theirs = original(photo).astype(np.float64)
            except (ValueError, RuntimeError):  # a side of 0 pixels, where a thin image is scaled to fit
                refused += 1
                continue
            ours, _ = prepare(png(photo), card.recipe, exact=mode == "exact")
            factor = 255 / max(1, ours.max()) if card.normalise.brightest else 1.0
            largest = max(largest, float(np.abs(ours * factor - theirs).max()))
        found.append(Difference(card.name, reference, mode, round(largest, 3), refused))
    return found


def compare_modes(
    card: ModelCard,
    folder: Path,
    reference: str,
    answers: Callable[[Difference, Loaded], None],
    prepared: Prepare | None = None,
) -> list[Difference]:
    """Export a model into a folder, and compare its pixels and its answers in both modes.

    Args:
        card: of the model.
        folder: of exported models.
        reference: the original's name and version.
        answers: adds the differences of answers.
        prepared: the original's preparation; None: it has none of its own, and gets the recipe's pixels.
    """
    export_model(card, Store(folder), accepted=(card.licence.code, card.licence.weights))
    prepared = prepared or (lambda photo: apply_exact(card.recipe, Image.fromarray(photo)))
    compared = compare_pixels(card, reference, prepared)
    for one in compared:
        answers(one, load_model(card.name, str(folder), pixels="exact" if one.mode == "exact" else "fast"))
    return compared


def compare_scores(expected: Sequence[Pixels], difference: Difference, served: Loaded) -> None:
    """Add the difference of the probabilities of all classes: `expected` are those of each photo, float32 [C]."""
    difference.score = 0.0
    for photo, wanted in zip(photos(), expected, strict=True):
        found: Any = served.predictor.predict(png(photo), served.model, {"top_k": len(wanted)}).predictions
        for one in found:
            difference.score = max(difference.score, abs(one.score - float(wanted[one.class_id])))
    difference.score = round(difference.score, 6)


def squared(card: ModelCard, images: Iterable[Pixels] | None = None) -> list[Pixels]:
    """The photos, or other images, in the size of the graph's input, where nothing is left to resample."""
    size = (card.recipe.width, card.recipe.height)
    return [np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_AREA), np.uint8) for photo in images or photos()]


def compare_classes(
    images: Sequence[Pixels], expected: Sequence[Pixels], difference: Difference, served: Loaded
) -> None:
    """Add the smallest IoU of a class's mask: `expected` has each pixel's class, [H, W], 0 being the background."""
    difference.mask = 1.0
    for photo, wanted in zip(images, expected, strict=True):
        height, width = wanted.shape
        answers: Any = served.predictor.predict(png(photo), served.model, {"mask": "rle"}).predictions
        found = {one.class_id: decode(one.mask, width, height) >= OPAQUE for one in answers}
        for class_id in {*found, *np.unique(wanted).tolist()} - {0}:
            difference.mask = min(difference.mask, mask_iou(found.get(class_id), wanted == class_id))


def mask_iou(ours: Pixels | None, theirs: Pixels) -> float:
    """IoU of two masks, bool [H, W]; None is an empty one."""
    if ours is None:
        return 0.0
    return round(float((ours & theirs).sum() / max(1, (ours | theirs).sum())), 5)


def compare_objects(
    difference: Difference,
    served: Loaded,
    original: Callable[[Pixels], list[Found] | None],
    images: Sequence[Pixels] | None = None,
) -> None:
    """Add the differences of objects to those of pixels.

    Args:
        difference: gets them.
        served: the served model.
        original: what it finds in an image; None: it cannot prepare it, and the image is left out.
        images: uint8 [H, W, 3]; None: the photos.
    """
    difference.objects, difference.missing, difference.score, difference.box = 0, 0, 0.0, 0.0
    surely = served.model.card.nms_options.score_threshold + _ALLOWED
    for photo in images or photos():
        if (expected := original(photo)) is None:
            continue
        answers: list[Any] = list(served.predictor.predict(png(photo), served.model, {}).predictions)
        answers = [one for one in answers if _has_area(one.box)]
        for one in filter(lambda found: _has_area(found.box), expected):
            difference.objects += 1
            same = [other for other in answers if other.class_id == one.class_id and iou(other.box, one.box) >= _SAME]
            if not same:
                difference.missing += one.score > surely
                continue
            nearest = max(same, key=lambda other: iou(other.box, one.box) - abs(other.score - one.score))
            answers.remove(nearest)
            difference.score = max(difference.score, abs(nearest.score - one.score))
            difference.box = max(difference.box, *(abs(a - b) for a, b in zip(nearest.box, one.box, strict=True)))
            if one.mask is not None and isinstance(nearest, Instance) and nearest.mask is not None:
                ours = decode(nearest.mask, photo.shape[1], photo.shape[0]) > 0
                difference.mask = min(1.0 if difference.mask is None else difference.mask, mask_iou(ours, one.mask))
        difference.missing += sum(one.score > surely for one in answers)  # objects that the original does not have
    difference.score, difference.box = round(difference.score, 6), round(difference.box, 3)


def _has_area(box: tuple[float, ...]) -> bool:
    """Whether IoU says anything of a box that is rounded as answers are: to hundredths of a pixel."""
    x0, y0, x1, y1 = (round(edge, 2) for edge in box)
    return min(x1 - x0, y1 - y0) > _THIN


def png(photo: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "PNG", compress_level=1)
    return file.getvalue()
