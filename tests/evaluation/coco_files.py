"""COCO files of two images of 20 x 20 pixels, a cat and a dog in each."""

import numpy as np
from pycocotools import mask as coco

from service.results import RunLength

BOXES = {"cat": [5.0, 5.0, 10.0, 10.0], "dog": [1.0, 1.0, 3.0, 4.0]}
SIDE = 20


def truth_file(**changes) -> dict:
    """A right file of two images; `changes` say how each annotation is made otherwise, from its number and itself."""
    file = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": SIDE, "height": SIDE} for i in (1, 2)],
        "categories": [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}],
        "annotations": [],
    }
    for image in (1, 2):
        for category, name in ((7, "cat"), (9, "dog")):
            x, y, w, h = BOXES[name]
            one = {"id": len(file["annotations"]) + 1, "image_id": image, "category_id": category, "iscrowd": 0}
            one |= {"bbox": BOXES[name], "area": w * h}
            one["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            file["annotations"].append(one)
    for name, change in changes.items():
        for i, one in enumerate(file[name]):
            one.update(change(i, one))
            for key in [key for key, value in one.items() if value is ...]:
                del one[key]
    return file


def mask_of(x: float, y: float, w: float, h: float) -> RunLength:
    mask = np.zeros((SIDE, SIDE), np.uint8, order="F")
    mask[int(y) : int(y + h), int(x) : int(x + w)] = 1
    return RunLength((SIDE, SIDE), coco.encode(mask)["counts"].decode())


def runs(i, one) -> dict:
    return {"size": [SIDE, SIDE], "counts": mask_of(*one["bbox"]).counts}


def plain_runs(i, one) -> dict:
    """As pycocotools decodes it, uncompressed."""
    pixels = coco.decode(runs(i, one)).ravel("F")
    edges = np.flatnonzero(np.diff(pixels)) + 1
    return {"size": [SIDE, SIDE], "counts": np.diff(np.concatenate([[0], edges, [pixels.size]])).tolist()}


def first(change: dict):
    return {"annotations": lambda i, one: change if i == 0 else {}}
