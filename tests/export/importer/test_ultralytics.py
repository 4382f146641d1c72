"""Cards that `zooserve add` proposes for Ultralytics' checkpoints of every task."""

import importlib.util

import pytest
import torch

from export.importer.checkpoint import draft_ultralytics
from export.ultralytics.library import import_library
from zoo.card import Keypoints

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ultralytics") is None, reason="the extra `ultralytics` is not installed"
)


@pytest.mark.parametrize(
    ("kind", "name", "more", "task", "keypoints"),
    [
        ("DetectionModel", "yolo11n", {}, "detect", None),
        ("SegmentationModel", "yolo26n-seg", {}, "segment", None),
        ("PoseModel", "yolo11n-pose", {}, "pose", "coco17"),
        ("PoseModel", "yolo26n-pose", {"data_kpt_shape": (2, 2)}, "pose", Keypoints(("point 0", "point 1"))),
        ("OBBModel", "yolo26n-obb", {}, "obb", None),
    ],
)
def test_the_head_says_the_task(import_options, tmp_path, kind, name, more, task, keypoints):
    model = getattr(import_library(), kind)(f"{name}.yaml", ch=3, nc=2, verbose=False, **more)
    model.names = {0: "left", 1: "right"}
    torch.save({"model": model}, tmp_path / "net.pt")
    card = draft_ultralytics(tmp_path / "net.pt", import_options(), tmp_path).card
    assert (card.task, card.keypoints, card.family) == (task, keypoints, "ultralytics")
