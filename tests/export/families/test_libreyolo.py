"""LibreYOLO's detectors: cards by name, checkpoints over HTTP, and the same answers as LibreYOLO's own `predict`.

LibreYOLO's files need its hub. These tests save random weights as it saves them, behind a server that answers as the
hub does; the weights are such that scores and boxes spread.
"""

import functools
import hashlib
import http.server
import json
import threading

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.ops import box_iou, clip_boxes_to_image

pytest.importorskip("libreyolo", reason="LibreYOLO is not installed: install zooserve's extra `libreyolo`")

from libreyolo.utils.general import COCO_CLASSES
from libreyolo.utils.serialization import wrap_libreyolo_checkpoint

from commands.originals.untrained import libreyolo_detector
from export.families import libreyolo as family
from export.families.libreyolo import build, card_for, describe, names
from export.heads import Pixels
from export.pipeline import export_model
from zoo import catalog
from zoo.card import Licence
from zoo.errors import ExportError, SourceError
from zoo.labels import read_labels
from zoo.libraries import described
from zoo.model_card import ModelCard
from zoo.recipe import apply_exact, placement
from zoo.sources import fetch_all
from zoo.store import Store

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NETWORKS = ["yolox_n", "yolo9_t", "rtmdet_t", "picodet_s", "dfine_n"]  # the other DETRs are read as D-FINE


def photo(name: str) -> Image.Image:
    return Image.open(catalog.sample(name)).convert("RGB")


def original(name: str):
    """LibreYOLO's own model with random weights, whose features are normalised to these photos."""
    model, size = family._MODELS[name]
    side = family.DETECTORS[model].build.INPUT_SIZES[size]
    images = [np.asarray(photo(name).resize((side, side))) for name in ("astronaut", "coffee", "rocket")]
    return libreyolo_detector(model, size, images)


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A hub with checkpoints of LibreYOLO's: name -> LibreYOLO's own model. Each is uploaded when it is asked for."""
    root = tmp_path_factory.mktemp("hub")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def translate_path(self, path: str) -> str:
            return super().translate_path(path.replace("?blobs=true", ".json"))

    @functools.cache
    def upload(name: str):
        model, size = family._MODELS[name]
        wrapper = original(name)
        file = f"{wrapper.FILENAME_PREFIX}{size}"
        path = root / "LibreYOLO" / file / "resolve" / COMMIT / f"{file}.pt"
        path.parent.mkdir(parents=True)
        state = wrapper.model.state_dict()
        torch.save(wrap_libreyolo_checkpoint(state, model_family=model, size=size, task="detect", nc=80), path)
        lfs = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "size": path.stat().st_size}
        said = {"sha": COMMIT, "cardData": {"license": "mit"}, "siblings": [{"rfilename": path.name, "lfs": lfs}]}
        (root / "api/models/LibreYOLO").mkdir(parents=True, exist_ok=True)
        (root / f"api/models/LibreYOLO/{file}.json").write_text(json.dumps(said))
        return wrapper

    handler = functools.partial(Handler, directory=root)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
            patch.setenv("ZOOSERVE_CACHE", str(tmp_path_factory.mktemp("cache")))
            yield upload
        server.shutdown()


def test_names():
    assert {"yolox_n", "yolo9_c", "rtmdet_t", "picodet_s", "rtdetr_r50", "dfine_x", "deim_m"} < set(names())


def test_labels_are_those_of_the_library():
    ours = read_labels("coco80")
    assert [label.replace(" ", "") for label in ours] == [label.replace(" ", "") for label in COCO_CLASSES]


@pytest.mark.parametrize("name", ["yolox_z", "yolox", "yolo1_t", "../yolox_n", "LibreYOLOXn"])
def test_unknown_names_have_no_card(name):
    assert card_for(name) is None
    assert describe(name) is None


@pytest.mark.parametrize("name", NETWORKS)
def test_a_card_by_name(hub, name):
    wrapper = hub(name)
    card = card_for(name)
    # Written and read again, a card passes all its own checks.
    assert msgspec.json.decode(msgspec.json.encode(card), type=ModelCard) == card
    assert card.recipe.height == card.recipe.width == wrapper.input_size
    assert card.licence.code in {"Apache-2.0", "MIT"}
    assert card.licence.weights == "MIT"  # what the hub says
    assert f"/resolve/{COMMIT}/" in card.sources["weights"].url
    assert describe(name) == described(card)


def test_without_a_route_to_the_hub(monkeypatch, tmp_path):
    monkeypatch.setenv("ZOOSERVE_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    known = describe("yolox_n")
    assert (known.licence, known.size) == (Licence("Apache-2.0", "LicenseRef-unknown"), None)
    assert known.sources["weights"].startswith("http://127.0.0.1:9/LibreYOLO/LibreYOLOXn/resolve/main/LibreYOLOXn")
    with pytest.raises(SourceError, match=r"cannot fetch .*/api/models/LibreYOLO/LibreYOLOXn.* set HF_ENDPOINT"):
        card_for("yolox_n")


def pairs_of(card: ModelCard, network: torch.nn.Module, image: Image.Image, *, best: bool):
    """All (box, class) pairs of an image as ours has them: boxes xyxy in its pixels, scores, classes; best first."""
    where = placement(card.recipe, *image.size)
    pixels = torch.from_numpy(apply_exact(card.recipe, image).copy()[None])
    with torch.no_grad():
        raw = network(Pixels(card.normalise)(pixels))
    boxes = raw["boxes"][0]
    boxes = (boxes - boxes.new_tensor(where[4:6]).tile(2)) / boxes.new_tensor(where[2:4]).tile(2)
    scores, count = raw["scores"][0], raw["scores"].shape[2]
    if best:
        scores = torch.where(scores == scores.max(1, keepdim=True).values, scores, 0)
    scores, order = scores.flatten().sort(descending=True)
    return clip_boxes_to_image(boxes[order // count], (image.height, image.width)), scores, order % count


@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_answers_as_libreyolo_gives(hub, name):
    """LibreYOLO's own `predict`, from photo to boxes, with a suppression that suppresses nothing."""
    wrapper, card = hub(name), card_for(name)
    network = build(card, fetch_all(card.sources))
    assert network.nms == (name != "dfine_n")
    if name in {"yolox_n", "rtmdet_t", "dfine_n"}:  # resampled by Pillow, as ours
        image = photo("coffee").resize({416: (520, 400), 640: (800, 600)}[wrapper.input_size])
    else:
        image = photo("coffee").resize((wrapper.input_size, wrapper.input_size))  # nothing is left to resample
    boxes, scores, classes = pairs_of(card, network.module, image, best=name == "yolox_n")
    count = next(i for i in range(100, 300) if scores[i - 1] - scores[i] > 2e-6)
    threshold = float(scores[count - 1] + scores[count]) / 2
    assert scores[0] - threshold > 0.005  # they spread
    boxes, scores, classes = boxes[:count], scores[:count], classes[:count]
    visible = (boxes[:, 2:] - boxes[:, :2]).min(1).values > 1
    assert visible.sum() > 50
    theirs = wrapper.predict(image, conf=threshold, iou=1.0, max_det=100_000).boxes
    overlap = box_iou(boxes, clip_boxes_to_image(theirs.xyxy, (image.height, image.width)))
    same = (classes[:, None] == theirs.cls[None]) & ((scores[:, None] - theirs.conf[None]).abs() < 1e-3)
    assert ((overlap > 0.98) & same).any(1)[visible].all()
    assert visible.sum() <= len(theirs) <= count


@pytest.mark.parametrize("name", ["yolox_n", "dfine_n"])
def test_from_a_name_to_a_published_folder(hub, name, tmp_path):
    hub(name)
    # Random weights amplify float noise more than trained ones.
    done = export_model(msgspec.structs.replace(card_for(name), tolerance=0.05), Store(tmp_path / "models"))
    served = Store(tmp_path / "models").verify(name, "1")
    assert served == done.card
    assert served.parity.batches == (1, 3, 8)
    assert served.nms == (name == "yolox_n")
    assert {output.name: output.shape[1] for output in served.outputs} == dict.fromkeys(
        ("boxes", "scores", "classes"), 1000 if served.nms else 300
    )
    assert served.provenance.exported_with["libreyolo"]


@pytest.mark.parametrize(
    ("name", "other", "message"),
    [
        ("yolox_t", "yolox_n", r"is no checkpoint of yolox_t\. "),
        ("yolo9_t", "yolox_n", r"is a checkpoint of 'yolox', and the card's option `model` says 'yolo9'"),
        ("deim_n", "dfine_n", r"is a checkpoint of 'dfine', and the card's option `model` says 'deim'"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(hub, name, other, message):
    hub(other)
    card, (model, size) = card_for(other), family._MODELS[name]
    with pytest.raises(ExportError, match=message):
        build(msgspec.structs.replace(card, options={"model": model, "size": size}), fetch_all(card.sources))


class Code:
    def __reduce__(self):
        return print, ("code of a checkpoint ran",)


def test_code_in_a_checkpoint_does_not_run(make_card, tmp_path, capsys):
    torch.save({"model": {}, "model_family": "yolox", "names": Code()}, tmp_path / "net.pt")
    card = make_card("detect", options={"model": "yolox", "size": "n"})
    with pytest.raises(ExportError, match="torch cannot read it without running code of its own"):
        build(card, {"weights": tmp_path / "net.pt"})
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("options", [{}, {"model": "yolox"}, {"model": "yolox", "size": "z"}])
def test_an_unknown_model_or_size_is_refused(make_card, tmp_path, options):
    with pytest.raises(ExportError, match=r"net: the options `model` and `size` give .* none of LibreYOLO .* yolox_n,"):
        build(make_card("detect", options=options), {"weights": tmp_path / "none"})
