"""Object detection and instance segmentation, judged by pycocotools as COCO's own evaluation does."""

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta, Struct
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from service.evaluate.classes import match
from service.evaluate.dataset import ClassScore, DataError, Dataset, Example, Measure, Scores
from service.results import Result, RunLength
from zoo.card import ServedCard

WORDS: Mapping[str, Any] = {"score_threshold": 0.001, "iou_threshold": 0.65, "max_detections": 100}
"""The options of published evaluations: nearly every candidate counts, at its rank."""

_STATS = (
    *("AP", "AP50", "AP75", "AP small", "AP medium", "AP large"),
    *("AR1", "AR10", "AR", "AR small", "AR medium", "AR large"),
)


class _Image(Struct):
    id: int
    file_name: str
    width: int
    height: int


class _Category(Struct):
    id: int
    name: str


class _Annotation(Struct):
    id: int
    image_id: int
    category_id: int
    bbox: Annotated[list[float], Meta(min_length=4, max_length=4)]
    area: float
    iscrowd: int = 0
    segmentation: Any = None


class Instances(Struct):
    """What is read of a COCO `instances_*.json`; the rest of it is not needed."""

    images: list[_Image]
    categories: list[_Category]
    annotations: list[_Annotation]


def read_coco(folder: Path, annotations: Path, card: ServedCard) -> Dataset:
    """Read COCO's instances and match their categories' names to the model's labels.

    Categories that the model does not know are left out of the evaluation, which the notes say.

    Args:
        folder: of the pictures.
        annotations: `instances_*.json`.
        card: of the model.

    Raises:
        DataError: it is no such file, or the model knows none of its categories.
    """
    try:
        instances = msgspec.json.decode(annotations.read_bytes(), type=Instances)
    except msgspec.DecodeError as error:
        raise DataError(f"{annotations} is no COCO file of instances: {error}") from error
    ids: dict[int, int] = {}
    absent = []
    for category in instances.categories:
        try:
            ids[match([category.name], card.labels)[category.name]] = category.id
        except DataError:
            absent.append(category.name)
    if not ids:
        raise DataError(
            f"{card.name} knows none of the {len(absent)} categories of {annotations} ({', '.join(absent[:5])}, ...); "
            f"its own are {', '.join(card.labels[:5])}, ..."
        )
    notes = [", ".join(f"{name} {value:g}" for name, value in WORDS.items())]
    if absent:
        notes.append(f"left out, since the model does not know them: {', '.join(absent)}")
    examples = [
        Example(image.file_name, (folder / image.file_name).read_bytes, image.id)
        for image in sorted(instances.images, key=lambda image: image.id)
    ]
    return Dataset("coco", examples, MeanAveragePrecision(instances, card, ids), tuple(notes))


class MeanAveragePrecision:
    """COCO's AP and AR, of boxes, and of masks where the answers carry them."""

    def __init__(self, instances: Instances, card: ServedCard, categories: Mapping[int, int]) -> None:
        """Prepare.

        Args:
            instances: the truth.
            card: of the model.
            categories: COCO's category ids by the model's class ids.
        """
        self._masks = card.task == "segment"
        self.words: Mapping[str, Any] = dict(WORDS) | ({"mask": "rle"} if self._masks else {})
        self._labels = card.labels
        self._categories = categories
        self._truth = instances
        self._images: list[int] = []
        self._found: list[dict[str, Any]] = []

    def compare(self, example: Example, result: Result) -> tuple[int, list[dict[str, Any]]]:
        return example.truth, [
            self._entry(example.truth, found) for found in result.predictions if found.class_id in self._categories
        ]

    def add(self, verdict: tuple[int, list[dict[str, Any]]]) -> None:
        image, found = verdict
        self._images.append(image)
        self._found += found

    def scores(self) -> Scores:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does
            truth = self._index()
            measures, per_class = self._evaluate(truth, "bbox")
            if self._masks:
                of_masks, per_class = self._evaluate(truth, "segm")
                measures = [
                    Measure(f"{kind} {one.name}", one.value)
                    for kind, part in (("mask", of_masks), ("box", measures))
                    for one in part
                ]
        return Scores(measures, "AP", per_class, [])

    def _entry(self, image: int, found: Any) -> dict[str, Any]:
        x0, y0, x1, y1 = found.box
        entry: dict[str, Any] = {
            "image_id": image,
            "category_id": self._categories[found.class_id],
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "score": found.score,
        }
        if self._masks and isinstance(found.mask, RunLength):
            entry["segmentation"] = {"size": list(found.mask.size), "counts": found.mask.counts}
        return entry

    def _index(self) -> COCO:
        """The truth of the pictures that were answered."""
        coco, seen, known = COCO(), set(self._images), set(self._categories.values())
        every = msgspec.to_builtins(self._truth)
        coco.dataset = {
            "info": {},
            "images": [image for image in every["images"] if image["id"] in seen],
            "categories": [category for category in every["categories"] if category["id"] in known],
            "annotations": [
                one for one in every["annotations"] if one["image_id"] in seen and one["category_id"] in known
            ],
        }
        coco.createIndex()
        return coco

    def _evaluate(self, truth: COCO, kind: str) -> tuple[list[Measure], list[ClassScore]]:
        answers = COCO()
        if self._found:  # `loadRes` wants at least one, and takes an object's size from its box where there is one
            other = "segmentation" if kind == "bbox" else "bbox"
            answers = truth.loadRes([{k: v for k, v in found.items() if k != other} for found in self._found])
        evaluation = COCOeval(truth, answers, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        measures = [
            Measure(name, float(value))
            for name, value in zip(_STATS, evaluation.stats, strict=True)
            if value >= 0  # -1: there was nothing of that size
        ]
        order = {category: class_id for class_id, category in self._categories.items()}
        precision = evaluation.eval["precision"][:, :, :, 0, -1]  # [IoU, recall, category] over all sizes
        per_class = []
        for k, category in enumerate(evaluation.params.catIds):
            of_class = precision[:, :, k]
            if (of_class > -1).any():
                count = sum(not one["iscrowd"] for one in truth.loadAnns(truth.getAnnIds(catIds=[category])))
                per_class.append((order[category], float(np.mean(of_class[of_class > -1])), count))
        return measures, [ClassScore(self._labels[i], value, count) for i, value, count in sorted(per_class)]
