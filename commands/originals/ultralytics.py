"""Ultralytics' own preparation and `predict`."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import cv2

from commands.originals.differences import Difference, Found, Pixels, compare_objects, compare_pixels
from export.pipeline import export_model
from export.ultralytics.library import import_library
from service.commands.load import load_model
from zoo import catalog
from zoo.model_card import ModelCard
from zoo.sources import fetch_all
from zoo.store import Store

ULTRALYTICS = ("yolov8n", "yolov8n_onnx", "yolo11n_seg")


def compare_ultralytics(names: Iterable[str], folder: Path) -> list[Difference]:
    """Compare models of the zoo with Ultralytics' `predict(rect=False)` on the same files: a letterbox of one size."""
    library = import_library("ultralytics")
    letterbox = import_library("ultralytics.data.augment").LetterBox
    reference = f"ultralytics {library.__version__}"
    cards = [catalog.find(name) for name in names]
    for card in cards:  # all of them first: its `predict` changes classes, after which a checkpoint is not read here
        export_model(card, Store(folder), accepted=(card.licence.code, card.licence.weights))
    rows = []
    for card in cards:
        assert isinstance(card, ModelCard)  # noqa: S101 - the zoo's detectors take images
        size = (card.recipe.height, card.recipe.width)
        compared = compare_pixels(card, reference, partial(_letterboxed, letterbox(size, auto=False)))
        original = library.YOLO(fetch_all(card.sources)["weights"], task=card.task)
        for one in compared:
            served = load_model(card.name, str(folder), pixels="exact" if one.mode == "exact" else "fast")
            compare_objects(one, served, partial(_ultralytics, original, size))
        rows += compared
    return rows


def _letterboxed(letterbox: Any, photo: Pixels) -> Pixels:
    prepared: Pixels = letterbox(image=photo)
    return prepared


def _ultralytics(original: Any, size: tuple[int, int], photo: Pixels) -> list[Found]:
    (result,) = original.predict(
        cv2.cvtColor(photo, cv2.COLOR_RGB2BGR), imgsz=size, rect=False, retina_masks=True, device="cpu", verbose=False
    )
    boxes = result.boxes
    masks = [None] * len(boxes) if result.masks is None else list(result.masks.data.numpy() > 0)
    rows = zip(boxes.cls.int().tolist(), boxes.conf.tolist(), boxes.xyxy.tolist(), masks, strict=True)
    return [Found(class_id, score, tuple(box), mask) for class_id, score, box, mask in rows]
