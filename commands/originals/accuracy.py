"""AP as `zooserve eval` measures it, beside that of the original library's answers to the same labelled photos.

Published AP is what pycocotools makes of the answers that Ultralytics' `val` writes. What `val` prints besides is its
own: it interpolates between recalls in another way.
"""

import contextlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from msgspec import Struct
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from commands.originals import labels
from commands.originals.answers import torchvision_objects, untrained_detector
from commands.originals.differences import Found, Pixels, squared
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
from zoo.sources import fetch_all
from zoo.store import Store

_KINDS = {
    "detect": {"bbox": "AP"},
    "segment": {"bbox": "box AP", "segm": "mask AP"},
    "pose": {"bbox": "box AP", "keypoints": "keypoint AP"},
    "obb": {"obb": "AP"},
}
"""By task: pycocotools' kinds, and what `zooserve eval` calls their AP."""
_PRINTED = {"bbox": "B", "segm": "M", "keypoints": "P", "obb": "B"}


class Accuracy(Struct):
    """AP of one model, measured twice.

    Attributes:
        measure: of boxes, masks or keypoints; 0 to 1.
        served: by `zooserve eval`; `original`: pycocotools' of the original's answers, or, of rotated boxes, which
            pycocotools does not know, what Ultralytics' `val` prints.
        printed: what that `val` prints, which interpolates differently; None: torchvision prints nothing.
        settings: how objects were selected.
    """

    model: str
    reference: str
    measure: str
    served: float
    original: float
    printed: float | None
    images: int
    objects: int
    settings: str


class Reference(NamedTuple):
    """An original library.

    Attributes:
        name: with its version.
        answers: of a card, the labelled photos (`write`) and a folder to write to: the answers in COCO's form, and what
            is printed beside.
    """

    name: str
    answers: Callable[[ModelCard, Path, Path], tuple[list[dict[str, Any]], dict[str, float]]]


def compare_with_torchvision(folder: Path, photos: Sequence[Pixels] | None = None) -> Iterator[Accuracy]:
    """Compare an untrained detector of torchvision's on 30 photos, or those that are given, with pycocotools.

    Labels are what the network answers, their sides moved by up to a tenth. The photos have the graph's size:
    torchvision resamples others in floats, and random weights would answer the rounding.
    """
    card, model = untrained_detector("ssdlite320_mobilenet_v3_large", folder)
    store = Store(folder / "models")
    export_model(card, store)
    served = _loaded(card.name, store)
    images = squared(card, photos or thirty())

    def detections(*_: object) -> tuple[list[dict[str, Any]], dict[str, float]]:
        found = [torchvision_objects(model, photo) or [] for photo in images]
        rows = [_coco_row(number, one) for number, objects in enumerate(found, start=1) for one in objects]
        return rows, {}

    own = f"torchvision {version('torchvision')}"
    yield from _compare(card, served, labels.resized(served), images, folder / card.name, Reference(own, detections))


def _coco_row(image: int, found: Found) -> dict[str, Any]:
    x0, y0, x1, y1 = found.box
    row: dict[str, Any] = {"image_id": image, "category_id": found.class_id + 1, "score": found.score}
    return row | {"bbox": [x0, y0, x1 - x0, y1 - y0]}


def compare_with_ultralytics(folder: Path, photos: Sequence[Pixels] | None = None) -> Iterator[Accuracy]:
    """Compare a detector, an instance segmenter, and untrained networks for poses and rotated boxes, on 30 photos.

    Or on those that are given. Rotated boxes are compared on five of them.
    Labels are what another model answers (for masks: the same one to the mirrored photo, a little larger or smaller).
    For poses and rotated boxes, which no trained network is at hand for, they are what the network itself answers,
    moved by up to a known share of the objects' size.
    """
    reference = Reference(f"ultralytics {import_library('ultralytics').__version__} val", _val)
    photos = photos or thirty()
    store = Store(folder / "models")
    boxes, masks = (_find(name) for name in ("yolov8n", "yolo11n_seg"))
    poses, rotated = (_untrained_card(name, folder) for name in ("yolo11n-pose", "yolo11n-obb"))
    cards = (boxes, masks, poses, rotated)
    for card in (*cards, _find("yolov8s")):  # before `val` changes classes of what reads checkpoints
        export_model(card, store, accepted=(card.licence.code, card.licence.weights))
    served = [_loaded(card.name, store) for card in cards]
    says = (
        labels.boxes(_loaded("yolov8s", store)),
        labels.mirrored(served[1]),
        labels.moved(served[2]),
        labels.turned(served[3]),
    )
    for card, loaded, say in zip(cards, served, says, strict=True):
        # Of rotated boxes, its `val` compares each of 8,400 answers with each.
        some = photos[:: len(photos) // 5] if card is rotated else photos
        yield from _compare(card, loaded, say, some, folder / card.name, reference)


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


def _compare(
    card: ModelCard,
    served: Loaded,
    label: Callable[[Pixels], list[Label]],
    photos: Sequence[Pixels],
    folder: Path,
    reference: Reference,
) -> list[Accuracy]:
    more = {"kpt_shape": [17, 3]} if card.task == "pose" else {}
    data = write(folder, photos, label, served.model.card.labels, **more)
    truth = folder / "instances.json"
    dataset = read_coco(folder / "images/val", truth, served.model.card)
    assert dataset.judge is not None  # noqa: S101 - COCO's has one
    scores, problems = judge_all(served.predictor, served.model, dataset.examples, dataset.judge, threads=2)
    assert not problems  # noqa: S101 - the photos were written above
    ours = {one.name: one.value for one in scores.measures}
    answers, printed = reference.answers(card, data, folder)
    objects = len(json.loads(truth.read_bytes())["annotations"])
    theirs = {
        kind: printed[f"metrics/mAP50-95({_PRINTED[kind]})"]
        if kind == "obb"
        else _pycocotools(truth, answers, kind, served.model.card.keypoints)
        for kind in _KINDS[card.task]
    }
    rows = []
    for kind, measure in _KINDS[card.task].items():
        says = printed.get(f"metrics/mAP50-95({_PRINTED[kind]})")
        rows.append(
            Accuracy(
                model=card.name,
                reference=reference.name,
                measure=measure,
                served=round(float(ours[measure]), 5),
                original=round(theirs[kind], 5),
                printed=None if says is None else round(says, 5),
                images=len(photos),
                objects=objects,
                settings=dataset.notes[0],
            )
        )
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
