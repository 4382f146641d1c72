"""YOLOX by name: cards, and an export that answers as the module `yolox` does, with random weights.

Megvii's files are on GitHub. These tests write random weights as they are there.
"""

import hashlib

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from PIL import Image, ImageDraw
from torch import nn

pytest.importorskip("yolox", reason="pixeltable-yolox is not installed: install zooserve's extra `yolox`")

from yolox.config import YoloxConfig
from yolox.data.datasets import COCO_CLASSES
from yolox.models import Yolox, YoloxProcessor

from export.families import yolox as family
from export.families.yolo_onnx import layouts
from export.families.yolox import build, card_for, describe, names
from export.heads import Pixels
from export.onnx_file.rows import decode_rows
from export.pipeline import export_model
from zoo import catalog
from zoo.errors import ExportError
from zoo.labels import read_labels
from zoo.libraries import described
from zoo.model_card import ModelCard, Source
from zoo.recipe import apply_exact, placement
from zoo.sources import fetch, fetch_all
from zoo.store import Store

NAME = "yolox-nano"
GLYPHS = Source(
    package="ddddocr==1.6.0",
    member="ddddocr/common_det.onnx",
    sha256="6faa8ea85a8c1a634e5050c4a138fca10f30194e0d7abbe9ade1fcd423af6ed6",
)


@pytest.fixture(scope="module")
def nano(tmp_path_factory):
    """YOLOX's own nano with random weights, on this machine in place of GitHub: features normalised to some photos."""
    torch.manual_seed(0)
    config = YoloxConfig.get_named_config(NAME)
    network, processor = config.get_model().eval(), YoloxProcessor(config)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.train()
            layer.momentum = 1.0
    for layer in (*network.head.cls_preds, *network.head.obj_preds, *network.head.reg_preds):
        nn.init.normal_(layer.weight, std=(0.1 if layer.out_channels == 4 else 1) / layer.in_channels**0.5)
        nn.init.constant_(layer.bias, 1.0 if layer.out_channels == 4 else -2.0)
    with torch.no_grad():
        network(
            processor(Image.open(catalog.sample(name)).convert("RGB") for name in ("astronaut", "coffee", "rocket"))
        )
    network.eval()
    for layer in network.modules():  # lest float noise grows from layer to layer
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_var.clamp_(min=layer.running_var.mean().item() / 4)
    path = tmp_path_factory.mktemp("yolox") / "yolox_nano.pth"
    torch.save({"start_epoch": 300, "model": network.state_dict()}, path)
    source = Source(file=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest(), size=path.stat().st_size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(family, "look_up", lambda *_: source)
        patch.setattr(family, "recall", lambda *_: source)
        yield Yolox(network, processor)


def test_names_and_labels():
    assert names() == ["yolox-nano", "yolox-tiny", "yolox-s", "yolox-m", "yolox-l", "yolox-x"]
    assert card_for("yolox-z") is None
    assert describe("yolox-z") is None
    assert list(read_labels("coco80")) == list(COCO_CLASSES)
    for name in names():
        config = YoloxConfig.get_named_config(name)
        assert config.test_size == (family._SIDES[name],) * 2


def test_the_first_download_is_trusted_where_github_gives_no_hash(monkeypatch, tmp_path):
    monkeypatch.setenv("ZOOSERVE_CACHE", str(tmp_path))
    known = describe("yolox-s")
    url = "https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0/yolox_s.pth"
    assert (known.sources, known.first_downloads) == ({"weights": url}, {"weights": ""})


def test_an_export_answers_as_the_original(nano, tmp_path):
    """From a photo to boxes, with a suppression that suppresses nothing; within half a pixel, scores within 1e-3."""
    card = card_for(NAME)
    assert msgspec.json.decode(msgspec.json.encode(card), type=ModelCard) == card
    assert describe(NAME) == described(card)
    # Random weights amplify float noise more than trained ones.
    card = msgspec.structs.replace(card, tolerance={"boxes": 0.1, "scores": 1e-3})
    done = export_model(card, Store(tmp_path / "models"))
    assert (done.card.nms, done.card.nms_options.iou_threshold) == (True, 0.65)
    image = Image.open(catalog.sample("coffee")).convert("RGB").resize((520, 400))  # to 416 x 320, nothing is rounded
    session = onnxruntime.InferenceSession(done.folder / "model.onnx")
    ours = session.run(["boxes", "scores", "classes"], {"images": apply_exact(card.recipe, image)[None]})
    boxes, scores, classes = (one[0] for one in ours)
    where = placement(card.recipe, *image.size)
    boxes = (boxes - np.tile(where[4:6], 2)) / np.tile(where[2:4], 2)
    nano.processor.config.nmsthre = 1.0
    (theirs,) = nano([Image.fromarray(np.asarray(image)[..., ::-1])], threshold=float(scores[200]))  # which takes BGR
    their_boxes, their_scores = np.array(theirs["bboxes"]), np.array(theirs["scores"])
    assert len(their_scores) in range(199, 203)
    assert np.ptp(scores[:200]) > 0.01  # they spread
    for box, score, label in zip(boxes[:199], scores, classes, strict=False):
        same = (np.array(theirs["labels"]) == label) & (np.abs(their_scores - score) < 1e-3)
        assert np.abs(their_boxes[same] - box).max(1).min(initial=np.inf) < 0.5


def test_real_weights(tmp_path):
    """A YOLOX-tiny that finds characters, of ddddocr (MIT). Its ONNX file's convolutions have taken in their norms."""
    model = onnx.load(fetch(GLYPHS, progress=False))
    values = {value.name: numpy_helper.to_array(value) for value in model.graph.initializer}
    folded = [
        [torch.tensor(values[name]) for name in node.input[1:]] for node in model.graph.node if node.op_type == "Conv"
    ]
    config = YoloxConfig.get_named_config("yolox-tiny")
    config.num_classes = 1
    network = config.get_model().eval()
    run: list[str] = []
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda *_, name=name: run.append(name))
    with torch.no_grad():
        network(torch.zeros(1, 3, 416, 416))
    state = network.state_dict()
    for name, (weight, bias) in zip(run, folded, strict=True):
        state[f"{name}.weight"] = weight
        if f"{name}.bias" in state:
            state[f"{name}.bias"] = bias
            continue
        norm = name.removesuffix("conv") + "bn"
        state[f"{norm}.bias"] = bias
        state[f"{norm}.running_var"] = torch.ones_like(bias) - network.get_submodule(norm).eps
    torch.save({"model": state}, tmp_path / "glyphs.pth")
    (tmp_path / "glyph.txt").write_text("character\n")
    card = msgspec.structs.replace(card_for("yolox-tiny"), labels=str(tmp_path / "glyph.txt"))
    module = build(card, {"weights": tmp_path / "glyphs.pth"}).module
    image = Image.open(catalog.sample("coffee")).convert("RGB")
    draw = ImageDraw.Draw(image)
    for i, letter in enumerate("XOZOO"):
        draw.text(
            (40 + 100 * i, 60 + 50 * (i % 3)), letter, "yellow", font_size=70, stroke_width=2, stroke_fill="black"
        )
    with torch.no_grad():
        x = Pixels(card.normalise)(torch.from_numpy(apply_exact(card.recipe, image)[None]))
        ours = module(x)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (rows,) = session.run(None, {"images": x.numpy()})
    decode = decode_rows(layouts(1, {})["yolox"], (416, 416), 0).SerializeToString()
    decoded = onnxruntime.InferenceSession(decode).run(["boxes", "scores"], {"decode/rows": rows})
    np.testing.assert_allclose(ours["scores"], decoded[1], atol=1e-4)
    sure = decoded[1][0, :, 0] > 0.05
    assert sure.any()
    assert decoded[1].max() > 0.5
    np.testing.assert_allclose(ours["boxes"][0][torch.from_numpy(sure)], decoded[0][0][sure], atol=0.05)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"options": {"model": "yolox-z"}}, "the option `model` is 'yolox-z'; expected one of yolox-nano, "),
        ({"options": {"model": "yolox-tiny"}}, r"is no checkpoint of yolox-tiny\."),
        ({"labels": "digits"}, "has a class for each of the card's labels"),
        ({"side": 400}, "yolox-nano needs sides that 32 divides, not 400 x 400"),
    ],
)
def test_what_does_not_fit_is_refused(nano, changes, message):
    card = card_for(NAME)
    if side := changes.pop("side", None):
        changes["recipe"] = msgspec.structs.replace(card.recipe, height=side, width=side)
    with pytest.raises(ExportError, match=message):
        build(msgspec.structs.replace(card, **changes), fetch_all(card.sources))
