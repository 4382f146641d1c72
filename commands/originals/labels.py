"""Labels for `accuracy`: what a model answers, changed, so that no network's AP is 0 or 1."""

from collections.abc import Callable
from typing import Any

import numpy as np

from commands.originals.differences import Pixels, png
from commands.originals.labelled import Label
from service.commands.load import Loaded
from zoo.card import Keypoints
from zoo.rotated import corners

_SURE = 0.15  # a score from which on an answer is a label
_MOST = 8  # labels of a photo, of an untrained network


def _answers(served: Loaded, photo: Pixels, **options: Any) -> list[Any]:
    return list(served.predictor.predict(png(photo), served.model, options).predictions)


def boxes(labeller: Loaded) -> Callable[[Pixels], list[Label]]:
    """Boxes: the answers of another model."""
    return lambda photo: [
        Label(one.class_id, one.box) for one in _answers(labeller, photo, score_threshold=_SURE, iou_threshold=0.6)
    ]


def mirrored(served: Loaded) -> Callable[[Pixels], list[Label]]:
    """Outlines: the answers to the mirrored photo, a little larger or smaller."""
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


def resized(served: Loaded) -> Callable[[Pixels], list[Label]]:
    """Boxes: an untrained network's answers, each side moved by up to a tenth of the box."""
    random = np.random.default_rng(0)

    def label(photo: Pixels) -> list[Label]:
        height, width = photo.shape[:2]
        found = []
        for one in _answers(served, photo, iou_threshold=0.3, max_detections=_MOST):
            x0, y0, x1, y1 = one.box
            sides = np.array(one.box) + random.uniform(-0.1, 0.1, 4) * (x1 - x0, y1 - y0, x1 - x0, y1 - y0)
            found.append(Label(one.class_id, sides.clip(0, (width, height, width, height)).tolist()))
        return found

    return label


def moved(served: Loaded) -> Callable[[Pixels], list[Label]]:
    """Poses: an untrained network's answers, their points moved by up to two sigmas."""
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


def turned(served: Loaded) -> Callable[[Pixels], list[Label]]:
    """Rotated boxes: an untrained network's answers, turned a little, and larger or smaller."""
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
