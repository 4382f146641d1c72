"""ONNX files of poses and rotated boxes, as Ultralytics exports them: the answers are those of the checkpoint."""

import importlib.util

import cv2
import msgspec
import numpy as np
import pytest
import torch

from commands.originals.untrained import untrained
from export.families import ultralytics, yolo_onnx
from export.importer.draft import draft_onnx
from export.importer.options import ImportOptions
from export.reference import Reference
from export.ultralytics.library import import_library
from zoo import catalog
from zoo.keypoints import COCO17

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ultralytics") is None, reason="the extra `ultralytics` is not installed"
)
SIDE = 160


@pytest.mark.parametrize("name", ["yolo11n-pose", "yolo11n-obb", "yolo26n-obb"])
def test_an_exported_file_answers_as_its_checkpoint(name, tmp_path):
    images = [cv2.resize(cv2.imread(str(catalog.sample(one)))[..., ::-1], (SIDE, SIDE)) for one in ("coffee", "rocket")]
    classes = 1 if "26" in name else 3  # end to end, a box with several labels is several objects
    torch.save({"model": untrained(name, images, classes=classes).model}, tmp_path / "net.pt")
    task = name.rpartition("-")[2]
    exported = (
        import_library("ultralytics")
        .YOLO(tmp_path / "net.pt", task=task)
        .export(format="onnx", imgsz=SIDE, simplify=False, nms=False if "26" in name else None, verbose=False)
    )
    draft = draft_onnx(tmp_path / "net.onnx", ImportOptions("net"), tmp_path)
    card = draft.card
    assert (str(exported), card.task, card.recipe.height) == (str(tmp_path / "net.onnx"), task, SIDE)
    assert card.keypoints == ("coco17" if task == "pose" else None)
    assert card.recipe.resize == "letterbox"
    ours = yolo_onnx.build(card, {"weights": tmp_path / "net.onnx"})
    theirs = ultralytics.build(msgspec.structs.replace(card, options={}), {"weights": tmp_path / "net.pt"})
    assert ours.nms == theirs.nms
    for image in images:
        got, wanted = (Reference(card, network, classes)(image[None]) for network in (ours, theirs))
        sure = slice(0, 10)  # beyond it, scores tie
        np.testing.assert_allclose(got["scores"][:, sure], wanted["scores"][:, sure], atol=1e-3)
        assert got["boxes"].shape == wanted["boxes"].shape
        for row in range(5):
            gaps = np.abs(got["boxes"][0] - wanted["boxes"][0, row]).max(1)
            near = int(gaps.argmin())
            assert gaps[near] < 0.05
            if task == "pose":
                assert got["keypoints"].shape[2:] == (len(COCO17.names), 3)
                np.testing.assert_allclose(got["keypoints"][0, near], wanted["keypoints"][0, row], atol=0.1)
