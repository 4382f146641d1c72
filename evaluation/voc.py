"""Semantic segmentation and salient objects: images and masks of class ids in two folders, as in Pascal VOC."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from zooserve_client.images import images_in

from evaluation.dataset import ClassScore, Confusion, DataError, Dataset, Example, Measure, Scores
from service.results import Result, Segment
from service.vision.masks import decode
from zoo.served_card import ServedCard

_IGNORE = 255
_SHOWN = 5  # names that a note lists
LAYOUTS = (("JPEGImages", "SegmentationClass"), ("images", "masks"), ("images", "labels"), ("images", "annotations"))
"""Known names of the folders of images and of masks."""
_VALIDATION = Path("ImageSets/Segmentation/val.txt")


def layout(folder: Path) -> tuple[Path, Path] | None:
    """Return the folders of images and of masks in a folder with names of `LAYOUTS`, or None."""
    for images, masks in LAYOUTS:
        if (folder / images).is_dir() and (folder / masks).is_dir():
            return folder / images, folder / masks
    return None


def read_voc(images: Path, masks: Path, card: ServedCard) -> Dataset:
    """Pair masks (`NAME.png`) with images of the same name.

    The pixels of a mask (palette or grey) are class ids; 255 is ignored. For a model of salient objects, every value
    except 0 is the object; in grey masks also 255. Where Pascal VOC's list of validation images lies beside the masks'
    folder, only those are judged, as in published results.

    Raises:
        DataError: no mask has an image, or two images or masks have the same name, or the list cannot be read or names
            no mask.
    """
    by_name, masked = _by_name(images), _by_name(masks)
    notes = []
    if (listed := masks.parent / _VALIDATION).is_file():
        chosen = _names_in(listed)
        masked = {name: mask for name, mask in masked.items() if name.as_posix() in chosen}
        notes.append(f"only the {len(chosen)} images that {_VALIDATION} names")
    examples, alone = [], []
    for name, mask in masked.items():
        image = by_name.get(name)
        if image is not None:
            examples.append(Example(image.name, image.read_bytes, mask))
        else:
            alone.append(mask.name)
    if not masked and listed.is_file():
        raise DataError(
            f"{listed} names no mask in {masks}: expected names without their suffix, one in a line. Correct it, or "
            "move it away, and all are judged"
        )
    if not examples:
        raise DataError(f"no mask in {masks} has the name of an image in {images}")
    salient = any(output.name == "alpha" for output in card.outputs)
    notes.append(f"{len(examples)} masks; {_IGNORE} is ignored")
    if alone:
        some = ", ".join(alone[:_SHOWN]) + (", ..." if len(alone) > _SHOWN else "")
        notes.append(f"masks left out, since no image has their name: {len(alone)} ({some})")
    if not listed.is_file() and (without := len(by_name) - len(examples)):
        notes.append(f"images left out, since no mask has their name: {without}")
    return Dataset("voc", examples, MeanIoU(card.labels, salient=salient), tuple(notes))


def _names_in(listed: Path) -> set[str]:
    """Return the names in a list of images, one in a line."""
    try:
        return {name for line in listed.read_text("utf-8-sig").splitlines() if (name := line.strip())}
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{listed} cannot be read: {error}") from error


def _by_name(folder: Path) -> dict[Path, Path]:
    """Return the images in a folder by their paths in it, without suffix; raises `DataError` if two have the same."""
    found: dict[Path, Path] = {}
    for path in images_in(folder):
        name = path.relative_to(folder)
        other = found.setdefault(name.with_suffix(""), path)
        if other is not path:
            raise DataError(
                f"{folder} has {other.relative_to(folder)} and {name}: an image and its mask have the same name, so "
                "each name is expected once. Put masks into a folder of their own"
            )
    return found


class MeanIoU:
    """Counts pixels by true and answered class, and computes the mean IoU."""

    def __init__(self, labels: Sequence[str], *, salient: bool = False) -> None:
        self.options: Mapping[str, Any] = {"mask": "rle"}
        self._labels = labels
        self._salient = salient
        self._counts = np.zeros((len(labels), len(labels)), np.int64)

    def compare(self, example: Example, result: Result) -> npt.NDArray[np.int64]:
        truth = self._read(example.truth)
        height, width = truth.shape
        if (width, height) != (result.image.width, result.image.height):
            raise DataError(
                f"the mask {example.truth.name} has {width} x {height} pixels, its image {result.image.width} x "
                f"{result.image.height}"
            )
        answer = np.zeros_like(truth)
        for found in result.predictions:
            if isinstance(found, Segment):
                if found.mask is None:
                    raise DataError("its recorded answer has no masks: ask with mask=rle")
                answer[decode(found.mask, width, height) > 127] = found.class_id
        return confusion(truth, answer, len(self._labels))

    def add(self, verdict: npt.NDArray[np.int64]) -> None:
        self._counts += verdict

    def scores(self) -> Scores:
        if not self._counts.any():
            raise DataError(f"every pixel of the masks is {_IGNORE}, which is ignored: there is nothing to judge")
        right = np.diag(self._counts).astype(np.float64)
        truth, answers = self._counts.sum(1), self._counts.sum(0)
        union = truth + answers - right
        there = np.flatnonzero(union)
        iou = right[there] / union[there]
        recall = right[truth > 0] / truth[truth > 0]
        measures = [
            Measure("mIoU", float(iou.mean())),
            Measure("pixel accuracy", float(right.sum() / self._counts.sum())),
            Measure("mean class accuracy", float(recall.mean())),
        ]
        per_class = [
            ClassScore(self._labels[i], value, int(truth[i]))
            for i, value in zip(there.tolist(), iou.tolist(), strict=True)
        ]
        pairs = [
            Confusion(self._labels[i], self._labels[j], int(self._counts[i, j]))
            for i, j in np.argwhere(self._counts).tolist()
        ]
        return Scores(measures, "IoU", per_class, pairs)

    def _read(self, path: Path) -> npt.NDArray[np.uint8]:
        try:
            with Image.open(path) as image:
                mode, ids = image.mode, np.asarray(image).astype(np.uint8)
        except (OSError, SyntaxError) as error:
            raise DataError(f"the mask {path.name} cannot be read: {error}") from error
        if mode not in ("1", "L", "P"):
            raise DataError(f"the mask {path.name} has the mode {mode}; expected class ids, as a palette or in grey")
        if self._salient:
            if mode == "P":
                return np.where(ids == _IGNORE, ids, np.minimum(ids, 1))
            return (ids > (127 if ids.max() > 127 else 0)).astype(np.uint8)
        highest = int(ids[ids != _IGNORE].max(initial=0))
        if highest >= len(self._labels):
            raise DataError(
                f"the mask {path.name} has the class id {highest}, and the model has {len(self._labels)} labels"
            )
        return ids


def confusion(truth: npt.NDArray[np.uint8], answer: npt.NDArray[np.uint8], classes: int) -> npt.NDArray[np.int64]:
    """Count pixels [truth, answer], int64 [classes, classes], of two maps of class ids; truth 255 is ignored."""
    seen = truth != _IGNORE
    pairs = truth[seen].astype(np.int64) * classes + answer[seen]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)
