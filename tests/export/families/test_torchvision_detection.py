"""Torchvision's detectors: their cards, and the served networks' answers beside torchvision's own on real photos.

Torchvision's own files need its hub. These tests save random weights in its files' form, made lively by what the
layers answer to real photos, so that there are hundreds of detections to compare.
"""

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torchvision.models import get_model, get_model_weights
from torchvision.models.detection._utils import overwrite_eps
from torchvision.ops import FrozenBatchNorm2d, box_iou, nms

from commands.originals.untrained import CATEGORIES, torchvision_detector
from export.families.torchvision_detection import build, card_for, names
from export.heads import Pixels, candidates
from export.pipeline import export_model
from zoo.errors import ExportError
from zoo.files import sha256_of
from zoo.labels import read_labels
from zoo.model_card import ModelCard, Source
from zoo.sources import fetch_all
from zoo.store import Store

MOBILE = "fasterrcnn_mobilenet_v3_large_320_fpn"
PHOTOS = ("chelsea", "astronaut")
TOLERANCE = 3e-4  # of scores: random networks multiply float noise more than trained ones


def at(card: ModelCard, side: int) -> ModelCard:
    """The card with a smaller input."""
    return msgspec.structs.replace(card, recipe=msgspec.structs.replace(card.recipe, height=side, width=side))


def run(model: nn.Module, x: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    with torch.no_grad():
        return model(list(x))


def saved(card: ModelCard, model: nn.Module, folder) -> ModelCard:
    """The card with the model's weights, in a file of torchvision's form, as its source."""
    path = folder / "weights.pth"
    torch.save(model.state_dict(), path)
    return msgspec.structs.replace(card, sources={"weights": Source(file=str(path), sha256=sha256_of(path))})


def kept(boxes: torch.Tensor, scores: torch.Tensor, classes: torch.Tensor, threshold: float) -> torch.Tensor:
    """Indices of what class-wise suppression keeps, best first. `batched_nms` moves boxes apart, which costs digits."""
    places = [(classes == label).nonzero()[:, 0] for label in classes.unique()]
    indices = torch.cat([place[nms(boxes[place], scores[place], threshold)] for place in places])
    return indices[scores[indices].argsort(descending=True)]


def check(model: nn.Module, wanted: list[dict], got: dict[str, torch.Tensor], served: dict[int, int]):
    """Each of torchvision's detections is there, and no other, down to the score of the last candidate.

    Args:
        model: torchvision's, with its own thresholds.
        wanted: its detections.
        got: the served graph's candidates.
        served: class ids by torchvision's labels.
    """
    own = getattr(model, "roi_heads", model)
    for want, boxes, scores, classes in zip(wanted, got["boxes"], got["scores"], got["classes"].long(), strict=True):
        low = max(own.score_thresh, scores.min())
        keep = kept(boxes, scores, classes, own.nms_thresh)
        keep = keep[scores[keep] > low][: own.detections_per_img]
        sure = want["scores"] > low
        labels = torch.tensor([served[label] for label in want["labels"][sure].tolist()])
        assert len(keep) == len(labels) >= 20
        gaps = (want["boxes"][sure][:, None] - boxes[keep]).abs().amax(2)
        gaps[labels[:, None] != classes[keep]] = torch.inf
        gaps[(want["scores"][sure][:, None] - scores[keep]).abs() > TOLERANCE] = torch.inf
        nearest, match = gaps.min(1)
        iou = box_iou(want["boxes"][sure], boxes[keep]).gather(1, match[:, None])[:, 0]
        assert nearest.max() < 0.1
        assert iou.nan_to_num(1.0).min() > 0.98  # SSD has boxes without an area, clipped to the edge


COCO = {CATEGORIES.index(label): i for i, label in enumerate(read_labels("coco80"))}


def test_the_detectors_of_boxes_are_there():
    assert set(names()) == {
        "fasterrcnn_mobilenet_v3_large_320_fpn",
        "fasterrcnn_mobilenet_v3_large_fpn",
        "fasterrcnn_resnet50_fpn",
        "fasterrcnn_resnet50_fpn_v2",
        "fcos_resnet50_fpn",
        "retinanet_resnet50_fpn",
        "retinanet_resnet50_fpn_v2",
        "ssd300_vgg16",
        "ssdlite320_mobilenet_v3_large",
    }


@pytest.mark.parametrize("name", names())
def test_a_card_by_name(name):
    card = card_for(name)
    weights = get_model_weights(name).DEFAULT
    assert msgspec.json.decode(msgspec.json.encode(card), type=type(card)) == card
    assert card.sources["weights"].url == weights.url
    assert card.sources["weights"].size / 2**20 == pytest.approx(weights.meta["_file_size"], abs=1e-3)
    assert card.sources["weights"].url.endswith(f"-{card.sources['weights'].sha256_prefix}.pth")
    used = [c for c in weights.meta["categories"] if c not in ("__background__", "N/A")]
    assert list(read_labels(card.labels)) == used
    side = {"ssd300_vgg16": 300, "ssdlite320_mobilenet_v3_large": 320, MOBILE: 320}.get(name, 800)
    assert (card.recipe.height, card.recipe.width) == (side, side)
    assert card.recipe.resize == ("stretch" if name.startswith("ssd") else "letterbox_top_left")


@pytest.mark.parametrize("name", ["ssd300_vgg16", "ssdlite320_mobilenet_v3_large", MOBILE])
def test_pixels_and_size_are_those_of_torchvisions_transform(name):
    card = card_for(name)
    transform = get_model(name, weights=None, weights_backbone=None).transform
    np.testing.assert_allclose(np.array(card.normalise.mean) / 255, transform.image_mean, atol=1e-6)
    np.testing.assert_allclose(np.array(card.normalise.std) / 255, transform.image_std, atol=1e-6)
    assert (card.recipe.height, card.recipe.width) == (transform.fixed_size or transform.min_size * 2)


@pytest.mark.parametrize("name", ["resnet50", "maskrcnn_resnet50_fpn", "keypointrcnn_resnet50_fpn", "yolov4_tiny"])
def test_unknown_names_have_no_card(name):
    assert card_for(name) is None


@pytest.mark.parametrize(("name", "side"), [("ssdlite320_mobilenet_v3_large", 320), (MOBILE, 192)])
def test_from_checkpoint_to_served_graph(name, side, tmp_path, make_images):
    """The whole export, and what ONNX Runtime answers is what torchvision answers to the same pixels."""
    card = at(card_for(name), side)
    images = make_images(card.recipe, *PHOTOS)
    x = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    model = torchvision_detector(card, x)
    card = msgspec.structs.replace(saved(card, model, tmp_path), tolerance=0.5)  # of a pixel: see TOLERANCE
    exported = export_model(card, Store(tmp_path / "models"))
    assert exported.card.nms
    assert {output.name: output.shape for output in exported.card.outputs} == {
        "boxes": (None, 1000, 4),
        "scores": (None, 1000),
        "classes": (None, 1000),
    }
    kinds = {node.op_type for node in onnx.load(exported.folder / "model.onnx").graph.node}
    assert not kinds & {"NonMaxSuppression", "NonZero", "Loop", "If", "Unique", "Compress"}
    session = onnxruntime.InferenceSession(exported.folder / "model.onnx")
    outputs = ("boxes", "scores", "classes")
    got = dict(zip(outputs, map(torch.from_numpy, session.run(outputs, {"images": images})), strict=True))
    check(model, run(model, x), got, COCO)


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("fcos_resnet50_fpn", 128),
        ("retinanet_resnet50_fpn", 128),
        ("fasterrcnn_resnet50_fpn", 128),  # pools from four levels, the mobile one from one
    ],
)
def test_as_torchvision_answers(name, side, tmp_path, make_images):
    card = at(card_for(name), side)
    card = msgspec.structs.replace(card, options={"architecture": name})
    images = make_images(card.recipe, "chelsea", "astronaut")
    x = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    model = torchvision_detector(card, x)
    network = build(card, fetch_all(saved(card, model, tmp_path).sources)).module
    with torch.no_grad():
        raw = network(Pixels(card.normalise)(torch.from_numpy(images)))
    check(model, run(model, x), candidates(raw, 1000), COCO)


def test_your_labels_follow_the_background(tmp_path, make_images):
    labels = tmp_path / "labels.txt"
    labels.write_text("cat\ncup\nrocket\n")
    name = "ssdlite320_mobilenet_v3_large"
    card = msgspec.structs.replace(card_for(name), labels=str(labels))
    images = make_images(card.recipe)
    x = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    model = torchvision_detector(card, x, classes=4)
    network = build(card, fetch_all(saved(card, model, tmp_path).sources)).module
    with torch.no_grad():
        raw = network(Pixels(card.normalise)(torch.from_numpy(images)))
    check(model, run(model, x), candidates(raw, 1000), {1: 0, 2: 1, 3: 2})


def test_weights_from_before_batch_norms_epsilon(tmp_path, make_images):
    """Torchvision's oldest weights were trained with frozen batch norms and no epsilon, and so are they loaded."""
    assert card_for("fasterrcnn_resnet50_fpn").options["batch_norm_eps"] == 0.0
    card = at(card_for("retinanet_resnet50_fpn"), 64)
    assert card.options["batch_norm_eps"] == 0.0
    x = torch.from_numpy(make_images(card.recipe)).permute(0, 3, 1, 2) / 255
    torch.manual_seed(0)
    model = get_model("retinanet_resnet50_fpn", weights=None, weights_backbone=None).eval()
    body = model.backbone.body
    for path, module in list(body.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            frozen = FrozenBatchNorm2d(module.num_features)
            frozen.load_state_dict(module.state_dict())
            parent, _, last = path.rpartition(".")
            setattr(body.get_submodule(parent), last, frozen)
    body.bn1.running_var.fill_(1e-4)  # where an epsilon of 1e-5 would show
    overwrite_eps(model, 0.0)
    assert not any(key.endswith("num_batches_tracked") for key in model.state_dict())
    network = build(card, fetch_all(saved(card, model, tmp_path).sources)).module
    with torch.no_grad():
        expected, got = model.backbone(x), network.backbone(x)
    for level in expected:
        torch.testing.assert_close(got[level], expected[level], rtol=1e-3, atol=1e-3 * expected[level].std().item())


@pytest.mark.parametrize(
    ("name", "other", "classes", "message"),
    [
        ("ssdlite320_mobilenet_v3_large", MOBILE, 91, r"Missing key\(s\) in state_dict: \"backbone.features.0.0.0"),
        (MOBILE, MOBILE, 5, r"size mismatch for roi_heads.box_predictor.cls_score.weight"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused(name, other, classes, message, tmp_path):
    card = card_for(name)
    network = get_model(other, weights=None, weights_backbone=None, num_classes=classes)
    with pytest.raises(ExportError, match=rf"weights\.pth is no checkpoint of {name}\. .*{message}"):
        build(card, fetch_all(saved(card, network, tmp_path).sources))


@pytest.mark.parametrize(
    ("name", "side", "message"),
    [
        ("ssd300_vgg16", 320, r"320 x 320 pixels, but ssd300_vgg16 takes 300 x 300 only"),
        (MOBILE, 300, rf"300 x 300 pixels, but {MOBILE} takes multiples of 32"),
    ],
)
def test_a_size_that_does_not_fit_is_refused(name, side, message, tmp_path):
    with pytest.raises(ExportError, match=message):
        build(at(card_for(name), side), {"weights": tmp_path / "none"})


def test_an_unknown_architecture_is_refused(make_card, tmp_path):
    card = make_card("detect", options={"architecture": "ssd512"})
    with pytest.raises(ExportError, match=r"net: the option `architecture` is 'ssd512', .* ssd300_vgg16,"):
        build(card, {"weights": tmp_path / "none"})
