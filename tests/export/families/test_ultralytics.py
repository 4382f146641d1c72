"""Ultralytics' checkpoints: the real YOLOv8n and YOLO11n-seg, and the structure of all the others."""

import importlib.util

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from torchvision.ops import box_iou, masks_to_boxes

from export.families.ultralytics import build
from export.reference import Reference
from export.ultralytics.library import import_library
from zoo import catalog
from zoo.card import Recipe
from zoo.errors import ExportError
from zoo.labels import read_labels
from zoo.model_card import Normalise
from zoo.sources import fetch_all

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ultralytics") is None, reason="the extra `ultralytics` is not installed"
)

KINDS = {
    "": ("DetectionModel", "detect"), "seg": ("SegmentationModel", "segment"), "pose": ("PoseModel", "pose"),
    "obb": ("OBBModel", "obb"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "fused"),
    [
        ("yolov8n", True), ("yolo11n-seg", False), ("yolov10n", False), ("yolo26n", True), ("yolo26n-seg", False),
        ("yolov8n-pose", True), ("yolo11n-pose", False), ("yolo26n-pose", True), ("yolo26n-pose", False),
        ("yolov8n-obb", True), ("yolo11n-obb", False), ("yolo26n-obb", True),
    ],
)  # fmt: skip
def test_every_architecture_answers_as_in_its_library(name, fused, make_card, tmp_path):
    torch.manual_seed(0)
    tasks = import_library()
    kind = getattr(tasks, KINDS[name.partition("-")[2]][0])
    model = kind(f"{name}.yaml", ch=3, nc=5, verbose=False).eval()
    for name_, parameter in model.named_parameters():
        if parameter.ndim == 1 and ".dfl." not in name_:
            torch.nn.init.uniform_(parameter, 0.5, 1)  # unlike the initial biases, under which all scores are alike
    head = model.model[-1]
    head.end2end = one_to_one = "10" in name or "26" in name
    model = model.fuse(verbose=False) if fused else model
    torch.save({"model": model}, tmp_path / "net.pt")
    task = KINDS[name.partition("-")[2]][1]
    card = make_card(task, recipe=Recipe(64, 96, "letterbox"))
    network = build(card, {"weights": tmp_path / "net.pt"})
    assert network.nms is not one_to_one
    x = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        ours, (answer, raw) = network.module(x), model(x)
        raw = raw.get("one2one", raw)
        theirs = head._inference(raw).transpose(1, 2)
    boxes = theirs[..., :4]
    if task == "obb":
        boxes = theirs[..., [0, 1, 2, 3, -1]]
    elif not one_to_one:
        boxes = torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], 2)
    torch.testing.assert_close(ours["boxes"], boxes, atol=1e-3, rtol=0)
    torch.testing.assert_close(ours["scores"], theirs[..., 4:9], atol=1e-5, rtol=0)
    assert ours["scores"].std() > 1e-3
    if "seg" in name:
        torch.testing.assert_close(ours["coefficients"], theirs[..., 9:], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(ours["prototypes"], answer[1], atol=1e-4, rtol=1e-4)
    if task == "pose":
        torch.testing.assert_close(ours["keypoints"].flatten(2), theirs[..., 9:], atol=1e-3, rtol=0)


@pytest.mark.parametrize(("row", "label"), [(0, "person"), (1, "cat"), (2, "cup")])
def test_the_masks_of_yolo11n_seg_fill_their_boxes(served, make_images, row, label):
    network = served("yolo11n_seg")
    answer = network(make_images(network.card.recipe, "astronaut", "chelsea", "coffee"))
    box, coefficients = (torch.from_numpy(answer[name][row, 0]) for name in ("boxes", "coefficients"))
    assert read_labels("coco80")[answer["classes"][row, 0]] == label
    prototypes = torch.from_numpy(answer["prototypes"][row])
    logits = torch.einsum("m,mhw->hw", coefficients, prototypes)
    mask = (
        torch.nn.functional.interpolate(logits[None, None], (640, 640), mode="bilinear")[0] > 0
    )  # where its sigmoid is over 0.5
    left, top, right, bottom = box.clamp(0, 640).round().int().tolist()
    inside = torch.zeros_like(mask)
    inside[:, top:bottom, left:right] = mask[:, top:bottom, left:right]  # beyond its box, a mask says nothing
    assert inside.sum() > 0.5 * (bottom - top) * (right - left)
    assert box_iou(masks_to_boxes(inside), box[None].clamp(0, 640)) > 0.9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "segment"}, r"yolov8n\.pt: the network ends in Detect, .* task detect; yolov8n is .* task segment"),
        ({"task": "classify"}, "is a card for the task classify"),
        ({"options": {"end2end": True}}, r"has the source `weights` and no options, .* \['end2end'\]"),
        ({"normalise": Normalise(channels="grey")}, "takes images of 3 channels, but the card's have 1"),
        ({"recipe": Recipe(600, 640, "letterbox")}, "needs sides that 32 divides, not 600 x 640"),
    ],
)
def test_cards_that_do_not_fit_are_refused(changes, message):
    card = catalog.find("yolov8n")
    with pytest.raises(ExportError, match=message):
        build(replace(card, **changes), fetch_all(card.sources, progress=False))


def test_labels_of_another_length_are_refused(served):
    card, network, _ = served("yolov8n")
    reference = Reference(replace(card, labels="voc21"), network, 21)
    with pytest.raises(ExportError, match=r"8400, 80\).* with the 21 labels of 'voc21'"):
        reference(np.zeros((1, 640, 640, 3), np.uint8))


def test_a_head_that_lacks_a_part_is_refused(make_card, tmp_path):
    """As those of older versions of the library do."""
    model = import_library().DetectionModel("yolov8n.yaml", ch=3, nc=80, verbose=False)
    del model.model[-1].reg_max
    torch.save({"model": model}, tmp_path / "net.pt")
    with pytest.raises(ExportError, match=r"net\.pt: does not run with ultralytics .*reg_max"):
        build(make_card("detect", recipe=Recipe(64, 96, "letterbox")), {"weights": tmp_path / "net.pt"})


def test_networks_for_other_tasks_are_refused(make_card, tmp_path):
    model = import_library().ClassificationModel("yolov8n-cls.yaml", ch=3, nc=3, verbose=False)
    torch.save({"model": model}, tmp_path / "net.pt")
    with pytest.raises(
        ExportError, match=r"ends in Classify, expected one of Detect, v10Detect, Segment, Segment26, Pose"
    ):
        build(make_card("detect"), {"weights": tmp_path / "net.pt"})
