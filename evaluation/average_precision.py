"""COCO's AP and AR of boxes, masks and keypoints, computed by pycocotools: the judge of `coco`.

pycocotools takes an annotation id of 0 for "not matched", uses only the last of annotations with the same id, and loses
ids of mixed types. So it gets new ids instead of the file's.
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from pycocotools import mask as coco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from evaluation.dataset import ClassScore, DataError, Example, Measure, Scores
from evaluation.outlines import Box, Outline
from service.results import Result, RunLength
from zoo.served_card import ServedCard

_STATS = (
    *("AP", "AP50", "AP75", "AP small", "AP medium", "AP large"),
    *("AR1", "AR10", "AR", "AR small", "AR medium", "AR large"),
)
_POSE_STATS = (
    *("AP", "AP50", "AP75", "AP medium", "AP large"),
    *("AR", "AR50", "AR75", "AR medium", "AR large"),
)
_KINDS: Mapping[str, tuple[str, ...]] = {"segment": ("segm", "bbox"), "pose": ("keypoints", "bbox")}
_WORDS = {"segm": "mask", "keypoints": "keypoint", "bbox": "box"}
_NOT_COUNTED = -1.0  # an area outside all ranges: finding or missing the object has no effect
_Id = int | float | str


class Object(NamedTuple):
    """One annotated object.

    Attributes:
        image: id of its image.
        class_id: of the model.
        box: x, y, width, height in pixels; None: that around the outline.
        area: in pixels; None: that of the outline if masks are judged, else of the box, as pycocotools does for
            answers.
        crowd: a group of objects: answers within it are not counted.
        ignore: not counted, as VOC's difficult objects. pycocotools does not read this field.
        outline: None if the file has none.
        where: its place in the file, for messages.
        keypoints: x, y and visibility of each; None if the model answers none.
    """

    image: _Id
    class_id: int
    box: Box | None
    area: float | None
    crowd: bool
    ignore: bool
    outline: Outline | None
    where: str
    keypoints: tuple[float, ...] | None = None


class _Verdict(NamedTuple):
    """One image's objects and answers, as pycocotools expects them, by `bbox`, `segm` and `keypoints`; without ids."""

    truth: dict[str, list[dict[str, Any]]]
    found: dict[str, list[dict[str, Any]]]


def options_of(card: ServedCard) -> dict[str, Any]:
    """The options of the model's published evaluation, with which nearly all candidates are ranked."""
    usual = card.evaluation
    return {
        "score_threshold": usual.score_threshold,
        "iou_threshold": usual.iou_threshold,
        "max_detections": usual.max_detections,
    }


def as_evaluated(card: ServedCard) -> ServedCard:
    """The card with the selection of its published evaluation, also what no option of a request says."""
    several = any(output.name == "class_scores" for output in card.outputs)
    selection = msgspec.structs.replace(card.evaluation, multi_label=card.evaluation.multi_label and several)
    return msgspec.structs.replace(card, nms_options=selection)


class MeanAveragePrecision:
    """COCO's AP and AR of boxes and, for instance segmentation, of masks; for poses, of keypoints by OKS."""

    def __init__(
        self, objects: Sequence[Object], sizes: Mapping[_Id, tuple[float | None, float | None]], card: ServedCard
    ) -> None:
        """Create the judge.

        Args:
            objects: the truth.
            sizes: width and height of each image by id, from the annotations; None if they do not have it.
            card: of the model.
        """
        self._kinds = _KINDS.get(card.task, ("bbox",))
        self._sigmas = card.keypoints.sigmas if card.keypoints is not None else ()
        self.options: Mapping[str, Any] = options_of(card) | ({"mask": "rle"} if card.task == "segment" else {})
        self._labels = card.labels
        self._sizes = sizes
        self._objects: dict[_Id, list[Object]] = {}
        for one in objects:
            self._objects.setdefault(one.image, []).append(one)
        self._classes = sorted({one.class_id for one in objects})
        self._verdicts: list[_Verdict] = []

    def compare(self, example: Example, result: Result) -> _Verdict:
        width, height = result.image.width, result.image.height
        noted = self._sizes[example.truth]
        if any(side not in (None, own) for side, own in zip(noted, (width, height), strict=True)):
            raise DataError(
                f"the annotations are of {noted[0]} x {noted[1]} pixels, the image has {width} x {height}, turned as "
                "its EXIF says"
            )
        truth: dict[str, list[dict[str, Any]]] = {kind: [] for kind in self._kinds}
        for one in self._objects.get(example.truth, ()):
            for kind, entry in self._entries(one, width, height).items():
                truth[kind].append(entry)
        found = {kind: [_answer(answer, kind) for answer in result.predictions] for kind in self._kinds}
        return _Verdict(truth, found)

    def add(self, verdict: _Verdict) -> None:
        self._verdicts.append(verdict)

    def scores(self) -> Scores:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does
            found = {kind: self._evaluate(kind) for kind in self._kinds}
        (kind, *_), ((measures, per_class), *boxes) = self._kinds, found.values()
        if not measures:
            raise DataError("no object in the images that were judged counts: there is nothing to find")
        if boxes:
            measures = [
                Measure(f"{name} {one.name}", one.value)
                for name, part in ((_WORDS[kind], measures), ("box", boxes[0][0]))
                for one in part
            ]
        return Scores(measures, "AP", per_class, [])

    def _entries(self, one: Object, width: int, height: int) -> dict[str, dict[str, Any]]:
        """Return an object in pycocotools' form, for each kind."""
        runs = None
        if one.outline is not None and (one.box is None or "segm" in self._kinds):
            try:
                runs = one.outline.encode(width, height)
            except DataError as error:
                raise DataError(f"{one.where}: {error}") from error
        box = one.box if one.box is not None else tuple(map(float, coco.toBbox(runs)))
        base = {"category_id": one.class_id, "iscrowd": int(one.crowd), "bbox": list(box)}
        entries = {}
        for kind in self._kinds:
            own = float(coco.area(runs)) if kind == "segm" else box[2] * box[3]
            # An object that covers no pixel cannot be found.
            area = _NOT_COUNTED if one.ignore or not own else one.area or own
            entries[kind] = base | {"area": area} | ({"segmentation": runs} if kind == "segm" else {})
            if kind == "keypoints" and one.keypoints is not None:
                # Without visible keypoints an object is ignored; its area, which scales distances, stays.
                visible = 0 if area == _NOT_COUNTED else sum(v > 0 for v in one.keypoints[2::3])
                entries[kind] |= {"keypoints": list(one.keypoints), "num_keypoints": visible, "area": one.area or own}
        return entries

    def _evaluate(self, kind: str) -> tuple[list[Measure], list[ClassScore]]:
        truth = COCO()
        truth.dataset = {
            "info": {},
            # pycocotools needs sizes here, but does not use them for run lengths.
            "images": [{"id": i, "height": 0, "width": 0} for i in range(len(self._verdicts))],
            "categories": [{"id": class_id} for class_id in self._classes],
            "annotations": _numbered(verdict.truth[kind] for verdict in self._verdicts),
        }
        truth.createIndex()
        found = [
            one
            for one in _numbered(verdict.found[kind] for verdict in self._verdicts)
            if one["category_id"] in set(self._classes)
        ]
        # `loadRes` needs at least one answer.
        evaluation = COCOeval(truth, truth.loadRes(found) if found else COCO(), kind)
        if kind == "keypoints":
            evaluation.params.kpt_oks_sigmas = np.array(self._sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        measures = [
            Measure(name, float(value))
            for name, value in zip(_POSE_STATS if kind == "keypoints" else _STATS, evaluation.stats, strict=True)
            if value >= 0  # -1: there was no object of that size
        ]
        precision = evaluation.eval["precision"][:, :, :, 0, -1]  # [IoU, recall, category] over all sizes
        per_class = []
        for k, class_id in enumerate(evaluation.params.catIds):
            of_class = precision[:, :, k]
            if (of_class > -1).any():
                each = truth.loadAnns(truth.getAnnIds(catIds=[class_id]))
                count = sum(not one["iscrowd"] and one["area"] >= 0 and one.get("num_keypoints", 1) > 0 for one in each)
                per_class.append(ClassScore(self._labels[class_id], float(np.mean(of_class[of_class > -1])), count))
        return measures, per_class


def _answer(found: Any, kind: str) -> dict[str, Any]:
    """Return an answer in pycocotools' form."""
    entry: dict[str, Any] = {"category_id": found.class_id, "score": found.score}
    if kind == "keypoints":
        return entry | {"keypoints": [value for point in found.keypoints.values() for value in point]}
    if kind == "bbox":
        x0, y0, x1, y1 = found.box
        return entry | {"bbox": [x0, y0, x1 - x0, y1 - y0]}
    if not isinstance(found.mask, RunLength):  # else the judge asked for them
        raise DataError("its recorded answer has no masks: ask with mask=rle")
    return entry | {"segmentation": {"size": list(found.mask.size), "counts": found.mask.counts}}


def _numbered(images: Any) -> list[dict[str, Any]]:
    """Return the entries of all images with new ids, from 1, and the index of their image."""
    entries = [one | {"image_id": image} for image, of_image in enumerate(images) for one in of_image]
    return [one | {"id": number} for number, one in enumerate(entries, start=1)]
