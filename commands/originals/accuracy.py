"""AP as `zooserve eval` measures it, beside Ultralytics' own `val` of the same checkpoint on the same labelled photos.

Published AP is what pycocotools makes of the answers that `val` writes. What `val` prints besides is its own: it
interpolates between recalls in another way.
"""

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from commands.originals.differences import Pixels, png
from commands.originals.labelled import Label, thirty, write
from commands.originals.untrained import untrained
from evaluation.average_precision import as_evaluated
from evaluation.coco import read_coco
from evaluation.run import judge_all
from export.pipeline import export_model
from export.ultralytics.library import import_library
from export.ultralytics.selection import VAL
from service.commands.load import Loaded, load_model
from zoo import catalog
from zoo.card import Keypoints
from zoo.files import sha256_of
from zoo.model_card import ModelCard, Source
from zoo.rotated import corners
from zoo.sources import fetch_all
from zoo.store import Store

_KINDS = {
    "detect": {"bbox": "AP"},
    "segment": {"bbox": "box AP", "segm": "mask AP"},
    "pose": {"bbox": "box AP", "keypoints": "keypoint AP"},
    "obb": {"obb": "AP"},
}
"""By task: pycocotools' kinds, and what `zooserve eval` calls their AP."""
_SURE = 0.15  # a score from which on an answer is a label
_MOST = 8  # labels of a photo, of an untrained network
_PRINTED = {"bbox": "B", "segm": "M", "keypoints": "P", "obb": "B"}


class Accuracy(Struct):
    """AP of one model, measured twice.

    Attributes:
        measure: of boxes, masks or keypoints; 0 to 1.
        served: by `zooserve eval`; `original`: pycocotools' of the answers of Ultralytics' `val`, or, of rotated boxes,
            which pycocotools does not know, what that `val` prints.
        printed: what that `val` prints, which interpolates differently.
        settings: how objects were selected.
    """

    model: str
    reference: str
    measure: str
    served: float
    original: float
    printed: float
    images: int
    objects: int
    settings: str


def compare_accuracy(folder: Path) -> Iterator[Accuracy]:
    """Compare a detector, an instance segmenter, and untrained networks for poses and rotated boxes, on 30 photos.

    Rotated boxes are compared on five of them.
    Labels are what another model answers (for masks: the same one to the mirrored photo, a little larger or smaller).
    For poses and rotated boxes, which no trained network is at hand for, they are what the network itself answers,
    moved by up to a known share of the objects' size.
    """
    photos = thirty()
    store = Store(folder / "models")
    boxes, masks = (_find(name) for name in ("yolov8n", "yolo11n_seg"))
    poses, rotated = (_untrained_card(name, folder) for name in ("yolo11n-pose", "yolo11n-obb"))
    cards = (boxes, masks, poses, rotated)
    for card in (*cards, _find("yolov8s")):  # before `val` changes classes of what reads checkpoints
        export_model(card, store, accepted=(card.licence.code, card.licence.weights))
    served = [_loaded(card.name, store) for card in cards]
    label = (_boxes(_loaded("yolov8s", store)), _mirrored(served[1]), _moved(served[2]), _turned(served[3]))
    compared = zip(cards, served, label, strict=True)
    for card, loaded, say in compared:
        some = photos[::6] if card is rotated else photos  # its `val` compares each of 8,400 answers with each
        yield from _compare(card, loaded, say, some, folder / card.name)


def _find(name: str) -> ModelCard:
    card = catalog.find(name)
    assert isinstance(card, ModelCard)  # noqa: S101 - they take images
    return msgspec.structs.replace(card, class_scores=True)


def _untrained_card(name: str, folder: Path) -> ModelCard:
    """The card of a network with random weights, which are written into the folder."""
    import torch  # noqa: PLC0415
    from PIL import Image  # noqa: PLC0415

    photos = [np.asarray(Image.fromarray(photo).resize((640, 640))) for photo in thirty()[::6]]
    torch.save({"model": untrained(name, photos, classes=1).model}, path := folder / f"{name}.pt")
    sources = {"weights": Source(file=str(path), sha256=sha256_of(path))}
    task: Any = name.rpartition("-")[2]
    return msgspec.structs.replace(
        _find("yolov8n"),
        name=name,
        task=task,
        labels="person",
        keypoints="coco17" if task == "pose" else None,
        class_scores=False,
        sources=sources,
        # Its answers overlap more than a trained one's.
        evaluation=msgspec.structs.replace(VAL, candidates=8400) if task == "pose" else None,
        expect=(),
        # Random weights multiply float noise.
        tolerance={"boxes": 0.1, "scores": 1e-3} | ({"keypoints": 0.1} if task == "pose" else {}),
    )


def _loaded(name: str, store: Store) -> Loaded:
    loaded = load_model(name, str(store.root), pixels="exact")
    loaded.model.card = as_evaluated(loaded.model.card)
    return loaded


def _answers(served: Loaded, photo: Pixels, **options: Any) -> list[Any]:
    return list(served.predictor.predict(png(photo), served.model, options).predictions)


def _boxes(labeller: Loaded) -> Callable[[Pixels], list[Label]]:
    return lambda photo: [
        Label(one.class_id, one.box) for one in _answers(labeller, photo, score_threshold=_SURE, iou_threshold=0.6)
    ]


def _mirrored(served: Loaded) -> Callable[[Pixels], list[Label]]:
    random = np.random.default_rng(0)

    def label(photo: Pixels) -> list[Label]:
        width = photo.shape[1]
        found = []
        for one in _answers(served, np.ascontiguousarray(photo[:, ::-1]), score_threshold=_SURE, mask="polygon"):
            polygon = np.array(max(one.mask.polygons, key=len, default=[]), float).reshape(-1, 2)
            if len(polygon) < 3:
                continue
            polygon[:, 0] = width - polygon[:, 0]
            centre = polygon.mean(0)
            polygon = (centre + (polygon - centre) * random.uniform(0.85, 1.1)).clip(0, (width, photo.shape[0]))
            box = (*polygon.min(0), *polygon.max(0))
            found.append(Label(one.class_id, box, polygon=polygon.ravel().tolist()))
        return found

    return label


def _moved(served: Loaded) -> Callable[[Pixels], list[Label]]:
    random = np.random.default_rng(0)
    points = served.model.card.keypoints
    assert isinstance(points, Keypoints)  # noqa: S101 - it answers poses

    def label(photo: Pixels) -> list[Label]:
        found = []
        for one in _answers(served, photo, iou_threshold=0.3, max_detections=_MOST):
            x0, y0, x1, y1 = one.box
            way = 2 * np.array(points.sigmas) * np.sqrt((x1 - x0) * (y1 - y0)) * random.uniform(0, 1)
            moved = np.array(list(one.keypoints.values()))[:, :2] + random.normal(0, way[:, None], (len(way), 2))
            moved = moved.clip(0, (photo.shape[1], photo.shape[0]))
            visible = np.full((len(moved), 1), 2.0)
            found.append(Label(one.class_id, one.box, keypoints=np.hstack([moved, visible]).ravel().tolist()))
        return found

    return label


def _turned(served: Loaded) -> Callable[[Pixels], list[Label]]:
    random = np.random.default_rng(0)

    def label(photo: Pixels) -> list[Label]:
        height, width = photo.shape[:2]
        answers = _answers(served, photo)
        boxes = np.array([(*one.center, *one.size, one.angle) for one in answers]).reshape(-1, 5)
        boxes[:, 2:4] *= random.uniform(0.7, 1.1, (len(boxes), 2))
        boxes[:, 4] += random.normal(0, 0.1, len(boxes))
        labels = []
        for one, ends in zip(answers, corners(boxes), strict=True):
            if (ends > 0).all() and (ends < (width, height)).all():  # Ultralytics clips others
                labels.append(Label(one.class_id, (*ends.min(0), *ends.max(0)), corners=ends.ravel().tolist()))
        return labels[:_MOST]

    return label


def _compare(
    card: ModelCard, served: Loaded, label: Callable[[Pixels], list[Label]], photos: list[Pixels], folder: Path
) -> list[Accuracy]:
    labels = served.model.card.labels
    more = {"kpt_shape": [17, 3]} if card.task == "pose" else {}
    data = write(folder, photos, label, labels, **more)
    truth = folder / "instances.json"
    dataset = read_coco(folder / "images/val", truth, served.model.card)
    assert dataset.judge is not None  # noqa: S101 - COCO's has one
    scores, problems = judge_all(served.predictor, served.model, dataset.examples, dataset.judge, threads=2)
    assert not problems  # noqa: S101 - the photos were written above
    ours = {one.name: one.value for one in scores.measures}
    answers, printed = _val(card, data, folder)
    reference = f"ultralytics {import_library('ultralytics').__version__} val"
    objects = len(json.loads(truth.read_bytes())["annotations"])
    theirs = {
        kind: printed[f"metrics/mAP50-95({_PRINTED[kind]})"]
        if kind == "obb"
        else _pycocotools(truth, answers, kind, served.model.card.keypoints)
        for kind in _KINDS[card.task]
    }
    rows = []
    for kind, measure in _KINDS[card.task].items():
        ap = (
            round(value, 5) for value in (ours[measure], theirs[kind], printed[f"metrics/mAP50-95({_PRINTED[kind]})"])
        )
        rows.append(Accuracy(card.name, reference, measure, *ap, len(photos), objects, dataset.notes[0]))  # type: ignore[call-arg, arg-type]
    return rows


def _val(card: ModelCard, data: Path, folder: Path) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Run Ultralytics' `val` with a square letterbox, and return its answers in COCO's form and what it prints."""
    original = import_library("ultralytics").YOLO(fetch_all(card.sources)["weights"], task=card.task)
    library: Any = original._smart_load("validator")

    class Validator(library):  # type: ignore[misc]
        def eval_json(self, stats: Any) -> Any:  # which would want another package
            return stats

    printed = original.val(
        validator=Validator,
        data=str(data),
        imgsz=card.recipe.height,
        rect=False,
        batch=1,
        workers=0,
        device="cpu",
        save_json=True,
        plots=False,
        verbose=False,
        project=str(folder),
        name="val",
    ).results_dict
    return json.loads((folder / "val/predictions.json").read_bytes()), dict(printed)


def _pycocotools(truth: Path, answers: list[dict[str, Any]], kind: str, points: Keypoints | None) -> float:
    with contextlib.redirect_stdout(io.StringIO()):
        expected = COCO(str(truth))
        evaluation = COCOeval(expected, expected.loadRes(answers), kind)
        if points is not None and kind == "keypoints":
            evaluation.params.kpt_oks_sigmas = np.array(points.sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])
