"""Detectors of transformers: cards by name, and exports that answer as the original library does.

Their files need a hub. These tests write random weights as it has them; the weights are such that scores and boxes
spread. RF-DETR's are written by its own library, `rfdetr`, whose names of tensors are those of its hub.
"""

import functools
import hashlib
import json
import shutil

import msgspec
import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision.transforms.functional import resize, to_tensor

pytest.importorskip("transformers", reason="transformers is not installed: install zooserve's extra `transformers`")

from transformers import (
    AutoModelForObjectDetection,
    DFineConfig,
    HGNetV2Config,
    RfDetrConfig,
    RfDetrDinov2Config,
    RTDetrConfig,
    RTDetrImageProcessor,
    RTDetrResNetConfig,
    RTDetrV2Config,
)

from export.families import transformers as family
from export.families.transformers import build, card_for, describe, names
from export.importer.adding import propose
from export.importer.options import ImportOptions
from export.pipeline import export_model
from zoo import catalog
from zoo.card import Licence, Recipe
from zoo.errors import ExportError
from zoo.extras import installed
from zoo.libraries import described
from zoo.model_card import ModelCard, Normalise, Source
from zoo.recipe import apply_exact
from zoo.sources import fetch_all
from zoo.sources.hub import HubFile
from zoo.store import Store

QUERIES = 50
"""Of 300 proposals with random scores some tie within float noise and change places: which ones are chosen, and with
which learned query RF-DETR pairs each (its n-th with the n-th best). So do the classes of some boxes."""
# Fewer layers than the published ones have, which are converted sooner.
SIZES = {"depths": [1, 1, 1, 1], "hidden_sizes": [64, 128, 256, 512]}
RESNET18 = {"layer_type": "basic", "out_indices": [2, 3, 4], **SIZES}
SMALL = {"encoder_in_channels": [128, 256, 512], "hidden_expansion": 0.5, "decoder_layers": 2, "num_queries": QUERIES}
CONFIGS = {  # as the config.json of the hub
    "rtdetr_r18vd": lambda: RTDetrConfig(backbone_config=RTDetrResNetConfig(**RESNET18), num_labels=80, **SMALL),
    "rtdetr_v2_r18vd": lambda: RTDetrV2Config(backbone_config=RTDetrResNetConfig(**RESNET18), num_labels=80, **SMALL),
    "dfine-small-coco": lambda: DFineConfig(
        backbone_config=HGNetV2Config(
            stem_channels=[3, 16, 16],
            stage_in_channels=[16, 64, 256, 512],
            stage_mid_channels=[16, 32, 64, 128],
            stage_out_channels=[64, 256, 512, 1024],
            hidden_sizes=[64, 256, 512, 1024],
            stage_num_blocks=[1, 1, 1, 1],
            stage_numb_of_layers=[2, 2, 2, 2],
            use_learnable_affine_block=True,
            out_indices=[2, 3, 4],
        ),
        encoder_in_channels=[256, 512, 1024],
        depth_mult=0.34,
        num_queries=QUERIES,
        hidden_expansion=0.5,
        decoder_layers=2,
        num_labels=80,
    ),
    "rf-detr-nano": lambda: RfDetrConfig(
        backbone_config=RfDetrDinov2Config(
            hidden_size=384,
            num_attention_heads=6,
            image_size=384,
            patch_size=16,
            num_windows=2,
            out_indices=[3, 6, 9, 12],
            use_mask_token=True,
        ),
        decoder_layers=2,
        decoder_n_points=2,
        num_labels=91,
        num_queries=QUERIES,
    ),
}
WITH_RFDETR = pytest.mark.skipif(not installed("rfdetr"), reason="rfdetr, the reference, is not installed")
NETWORKS = ["rtdetr_r18vd", "rtdetr_v2_r18vd", "dfine-small-coco", pytest.param("rf-detr-nano", marks=WITH_RFDETR)]


def photo(name: str, side: int) -> Image.Image:
    return Image.open(catalog.sample(name)).convert("RGB").resize((side, side))


def spread(network: nn.Module, run) -> nn.Module:
    """Random weights: features normalised to what `run` shows the network, and scores and boxes that spread."""
    torch.manual_seed(0)
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    for layer in network.modules():
        if isinstance(layer, nn.Linear) and layer.out_features in {4, 80, 91}:
            nn.init.normal_(layer.weight, std={4: 0.3, 80: 2, 91: 1}[layer.out_features] / layer.in_features**0.5)
            nn.init.constant_(layer.bias, 0.0 if layer.out_features == 4 else -3.0)
    for layer in norms:
        layer.train()
        layer.momentum = 1.0
    with torch.no_grad():
        run(network)
    return network.eval()


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A hub's folder, as `look_up` sees it: name -> the original's way from a photo to boxes, scores and labels."""
    root = tmp_path_factory.mktemp("hub")

    @functools.cache
    def upload(name: str):
        folder = root / family._repository(name)
        folder.mkdir(parents=True)
        config = CONFIGS[name]()
        if name == "rf-detr-nano":
            return write_rfdetr(folder, config)
        config.freeze_backbone_batch_norms = False  # else they cannot be normalised
        inputs = torch.stack([pixels(photo(one, 320)) for one in ("astronaut", "coffee", "rocket")])
        network = spread(AutoModelForObjectDetection.from_config(config).eval(), lambda net: net(pixel_values=inputs))
        network.config.freeze_backbone_batch_norms = True
        network.save_pretrained(folder)
        return functools.partial(original, folder)

    def look_up(repository: str, file: str) -> HubFile:
        path = root / repository / file
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        return HubFile(Source(file=str(path), sha256=sha256, size=path.stat().st_size), "Apache-2.0")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(family, "look_up", look_up)
        yield upload


def pixels(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255


def original(folder, image: Image.Image):
    """The way from a photo to objects that transformers documents."""
    network = AutoModelForObjectDetection.from_pretrained(folder).eval()
    processor = RTDetrImageProcessor(size={"height": image.height, "width": image.width})
    with torch.no_grad():
        outputs = network(**processor(image, return_tensors="pt"))
    (found,) = processor.post_process_object_detection(outputs, 0.0, [(image.height, image.width)])
    return found["boxes"].numpy(), found["scores"].numpy(), found["labels"].numpy()


def write_rfdetr(folder, config):
    """Checkpoint of RF-DETR's own library, and its own `predict`."""
    from rfdetr import RFDETRNano

    model = RFDETRNano(pretrain_weights=None, num_queries=QUERIES, device="cpu")
    spread(model.model.model, lambda _: None)
    weights = {name: value.clone() for name, value in model.model.model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config.architectures = ["RfDetrForObjectDetection"]
    config.save_pretrained(folder)
    coco = {place: label for label, place in enumerate(family._columns(catalog.find("yolov8n"), 91))}

    def predict(image: Image.Image):
        found = model.predict(image, threshold=0.0, shape=image.size)
        known = np.isin(found.class_id, list(coco))  # of the ids that COCO uses
        return found.xyxy[known], found.confidence[known], np.array([coco[i] for i in found.class_id[known]])

    return predict


def test_names():
    assert {"rtdetr_r50vd", "rtdetr_v2_r101vd", "dfine-nano-coco", "dfine-xlarge-obj2coco"} < set(names())
    assert {f"rf-detr-{size}" for size in ("nano", "small", "medium", "base", "large")} < set(names())
    assert card_for("rtdetr_r51vd") is None
    assert describe("rtdetr_r51vd") is None


def test_without_a_route_to_the_hub(monkeypatch, tmp_path):
    monkeypatch.setenv("ZOOSERVE_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    known = describe("dfine-nano-coco")
    assert (known.task, known.licence, known.size) == ("detect", Licence("Apache-2.0", "Apache-2.0"), None)
    assert known.sources == {
        "weights": "http://127.0.0.1:9/ustc-community/dfine-nano-coco/resolve/main/model.safetensors",
        "config": "http://127.0.0.1:9/ustc-community/dfine-nano-coco/resolve/main/config.json",
    }


@pytest.mark.parametrize("size", [(641, 640), (1919, 1080), (333, 1000)])
@pytest.mark.parametrize("published", [family._PUBLISHED[0], family._PUBLISHED[-1]], ids=lambda one: one.title)
def test_images_are_prepared_as_the_original_does(published, size):
    image = Image.open(catalog.sample("coffee")).convert("RGB").resize(size)
    if published.title == "RF-DETR":  # the step of its `predict`
        original = resize(to_tensor(image), [384, 384], antialias=False)
    else:
        processor = RTDetrImageProcessor(size={"height": 384, "width": 384})
        original = processor(image, return_tensors="pt")["pixel_values"][0]
    ours = apply_exact(Recipe(384, 384, "stretch", resampling=published.resampling), image).astype(np.float32)
    assert np.abs(original.permute(1, 2, 0).numpy() * 255 - ours).max() < 1.01


@pytest.mark.parametrize("name", NETWORKS)
def test_an_export_answers_as_the_original(hub, name, monkeypatch, tmp_path):
    """Boxes within half a pixel, scores within 1e-3. A recipe may have another size than the published one."""
    predict, card = hub(name), card_for(name)
    assert msgspec.json.decode(msgspec.json.encode(card), type=ModelCard) == card
    monkeypatch.setattr(family, "recall", family.look_up)
    assert describe(name) == described(card)
    assert (card.licence.weights, card.recipe.height) == ("Apache-2.0", 384 if name == "rf-detr-nano" else 640)
    side = 320 if name == "rf-detr-nano" else 256  # its positions are interpolated then
    # Random weights amplify float noise more than trained ones.
    card = msgspec.structs.replace(card, recipe=Recipe(side, side, "stretch"), tolerance={"boxes": 0.2, "scores": 1e-3})
    done = export_model(card, Store(tmp_path / "models"))
    assert (done.card.nms, done.card.parity.batches, done.card.parity.original) == (False, (1, 3, 8), True)
    assert done.card.provenance.exported_with["transformers"]
    image = photo("coffee", side)
    session = onnxruntime.InferenceSession(done.folder / "model.onnx")
    ours = session.run(["boxes", "scores", "classes"], {"images": np.asarray(image)[None]})
    boxes, scores, classes = (one[0] for one in ours)
    assert np.ptp(scores) > 0.05  # they spread
    their_boxes, their_scores, their_classes = predict(image)
    sure = scores > max(their_scores.min(), 0.0) + 1e-3  # they answer with several classes of a box, up to some number
    assert sure.sum() > 5
    for box, score, label in zip(boxes[sure], scores[sure], classes[sure], strict=True):
        same = (their_classes == label) & (np.abs(their_scores - score) < 1e-3)
        assert np.abs(their_boxes[same].clip(0, side) - box.clip(0, side)).max(1).min(initial=np.inf) < 0.5
    assert scores[0] == pytest.approx(their_scores.max(), abs=1e-3)


def test_a_checkpoint_is_added_by_the_files_beside_it(hub, tmp_path):
    hub("rtdetr_r18vd")
    for source, file in card_for("rtdetr_r18vd").sources.items():
        shutil.copy(file.file, tmp_path / family._FILES[source])
    RTDetrImageProcessor(size={"height": 320, "width": 320}).save_pretrained(tmp_path)
    stated = ImportOptions("net", labels="coco80", licence="Apache-2.0")
    made = propose(tmp_path / "model.safetensors", stated, tmp_path, family=None, architecture=None, cfg=None)
    assert (made.card.family, made.card.recipe) == ("transformers", Recipe(320, 320, "stretch"))
    assert made.card.normalise == Normalise()
    build(made.card, fetch_all(made.card.sources))


def test_what_does_not_fit_is_refused(hub, tmp_path):
    hub("rtdetr_r18vd")
    card = card_for("rtdetr_r18vd")
    files = fetch_all(card.sources)
    other = tmp_path / "config.json"

    def message(change: dict, card=card, **also) -> str:
        other.write_text(json.dumps(json.loads(files["config"].read_text()) | change))
        with pytest.raises(ExportError) as error:
            build(card, files | {"config": other} | also)
        return str(error.value)

    assert "a network of the type 'detr'; expected one of rt_detr, rt_detr_v2, d_fine" in message(
        {"model_type": "detr"}
    )
    assert "does not describe a network of transformers" in message({"model_type": "none"})
    assert "is no checkpoint of what" in message({"decoder_layers": 4})
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    assert "is no checkpoint of what" in message({}, weights=tmp_path / "model.safetensors")
    digits = msgspec.structs.replace(card, labels="digits")
    assert "the network's head has 80 places, and 'digits' has 10 labels" in message({}, digits)
    with pytest.raises(ExportError, match=r"has the sources `weights` .* and `config`"):
        build(card, {"weights": files["weights"]})
