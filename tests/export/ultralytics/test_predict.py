"""Poses and rotated boxes as Ultralytics' own `predict` answers them: every architecture, with random weights.

Real weights for these tasks cannot be had here. The photos have the size of the network's input, so that both libraries
see the same pixels.
"""

import importlib.util

import cv2
import numpy as np
import onnx
import pytest
import torch

from commands.originals.untrained import untrained
from export.convert import convert
from export.families.ultralytics import build
from export.parity import measure
from export.reference import Reference
from export.ultralytics.library import import_library
from export.ultralytics.selection import PREDICT
from service.tasks import TASKS
from zoo import catalog
from zoo.card import Recipe
from zoo.keypoints import COCO17
from zoo.labels import read_labels
from zoo.recipe import placement
from zoo.rotated import normal_angle, probiou

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ultralytics") is None, reason="the extra `ultralytics` is not installed"
)
SIDE = 640
PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "china")
IOU = 0.45


def photos() -> list[np.ndarray]:
    """uint8 [640, 640, 3], RGB."""
    return [
        cv2.resize(cv2.imread(str(catalog.sample(name)))[..., ::-1], (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        for name in PHOTOS
    ]


@pytest.mark.parametrize("task", ["pose", "obb"])
@pytest.mark.parametrize("version", ["yolov8n", "yolo11n", "yolo26n"])
def test_the_answers_are_those_of_its_own_predict(version, task, make_card, tmp_path):
    images = photos()
    yolo = untrained(f"{version}-{task}", images)
    torch.save({"model": yolo.model}, tmp_path / "net.pt")
    card = make_card(task, recipe=Recipe(SIDE, SIDE, "letterbox"), labels=label_file(tmp_path, yolo.model.yaml["nc"]))
    network = build(card, {"weights": tmp_path / "net.pt"})
    reference = Reference(card, network, yolo.model.yaml["nc"])
    served = Served(card, network.nms)
    found = 0
    for image in images:
        outputs = reference(image[None])
        threshold = widest_gap(outputs["scores"][0, 20:120])
        options = {"conf": threshold, "iou": IOU, "max_det": 300, "imgsz": SIDE, "verbose": False, "save": False}
        if not network.nms:
            options["nms"] = False  # the one-to-one head; its `predict` takes the other one by default
        (theirs,) = yolo.predict(np.ascontiguousarray(image[..., ::-1]), **options)
        asked = TASKS[task].options(score_threshold=threshold, iou_threshold=IOU, max_detections=300)
        ours = TASKS[task].answer(outputs, 0, served, placement(card.recipe, SIDE, SIDE), asked)
        compare = compare_poses if task == "pose" else compare_rotated
        compare(ours, theirs)
        found += len(ours)
    assert found >= 25


def widest_gap(scores: np.ndarray) -> float:
    """The middle of the widest gap between scores in descending order: float noise takes none over it."""
    at = int((scores[:-1] - scores[1:]).argmax())
    return float(scores[at : at + 2].mean())


def first_labels(rows: np.ndarray, boxes: slice) -> list[int]:
    """The rows whose box was not there before: a one-to-one head may answer a box with several labels, we with one."""
    return sorted(np.unique(rows[:, boxes], axis=0, return_index=True)[1].tolist())


def compare_poses(ours, theirs) -> None:
    boxes, data = theirs.boxes.data.numpy(), theirs.keypoints.data.numpy()
    rows = first_labels(data.reshape(len(data), -1), slice(None))
    rows = [row for row in rows if (boxes[row, 2:4] > boxes[row, :2]).all()]  # untrained, a side may be negative
    boxes, data = boxes[rows], data[rows]
    assert len(ours) == len(boxes)
    for pose, box, points in zip(ours, boxes, data, strict=True):
        assert pose.score == pytest.approx(box[4], abs=1e-3)
        assert pose.box == pytest.approx(box[:4], abs=0.5)
        assert tuple(pose.keypoints) == COCO17.names
        np.testing.assert_allclose(np.array(list(pose.keypoints.values()))[:, :2], points[:, :2], atol=0.5)
        np.testing.assert_allclose(np.array(list(pose.keypoints.values()))[:, 2], points[:, 2], atol=1e-3)


def compare_rotated(ours, theirs) -> None:
    data, corners = theirs.obb.data.numpy(), theirs.obb.xyxyxyxy.numpy()
    rows = first_labels(data, slice(5))
    data, corners = data[rows], corners[rows]
    assert len(ours) == len(data)
    for box, row, ends in zip(ours, data, corners, strict=True):
        assert box.score == pytest.approx(row[5], abs=1e-3)
        assert box.class_id == row[6]
        assert (*box.center, *box.size) == pytest.approx(row[:4], abs=0.5)
        assert box.angle == pytest.approx(float(normal_angle(row[4])), abs=1e-3)
        # The library lists the corners from the bottom right; the same places, whatever comes first.
        gaps = np.linalg.norm(np.array(box.corners)[:, None] - ends[None], axis=2)
        assert gaps.min(1).max() < 0.5


@pytest.mark.parametrize("name", ["yolo11n-pose", "yolo26n-obb"])
def test_the_served_graph_answers_as_the_network_in_batches_too(name, make_card, tmp_path):
    images = np.stack([cv2.resize(image, (160, 160)) for image in photos()])
    yolo = untrained(name, list(images))
    torch.save({"model": yolo.model}, tmp_path / "net.pt")
    classes = yolo.model.yaml["nc"]
    card = make_card(
        name.rpartition("-")[2],
        recipe=Recipe(160, 160, "letterbox"),
        labels=label_file(tmp_path, classes),
        tolerance={"boxes": 0.05, "scores": 1e-3},
    )
    network = build(card, {"weights": tmp_path / "net.pt"})
    reference = Reference(card, network, classes)
    onnx.save_model(convert(card, network, reference.head, reference.raw(images[:2])), tmp_path / "model.onnx")
    answers = [reference(image[None]) for image in images]
    parity = measure(card, tmp_path / "model.onnx", "torch", images, answers)
    assert parity.max_difference.keys() == {"boxes", "scores"} | ({"keypoints"} if "pose" in name else set())
    assert (answers[0]["scores"] > 0.05).any()  # below it, boxes are not compared


def test_overlaps_are_those_of_the_library():
    metrics = import_library("ultralytics.utils.metrics")
    random = np.random.default_rng(0)
    boxes = random.uniform([0, 0, 1, 1, -1], [60, 60, 50, 50, 3], (40, 5))
    theirs = metrics.batch_probiou(torch.from_numpy(boxes), torch.from_numpy(boxes)).numpy()
    np.testing.assert_allclose(probiou(boxes, boxes), theirs, atol=1e-6)


class Served:
    """What a task reads of a served card."""

    def __init__(self, card, nms: bool) -> None:
        self.labels, self.nms, self.keypoints = read_labels(card.labels), nms, COCO17 if card.keypoints else None
        self.nms_options = PREDICT


def label_file(folder, count: int) -> str:
    (folder / "labels.txt").write_text("".join(f"class {i}\n" for i in range(count)))
    return str(folder / "labels.txt")
