"""From card to published folder, on real weights; and nothing is published where a check fails."""

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from torchvision.models import get_model

from export.families.torchvision import card_for
from export.pipeline import export_model
from tests.export.any_batch import check_any_batch
from zoo import catalog
from zoo.errors import CardError, ExportError
from zoo.files import sha256_of
from zoo.model_card import Expectation, Source
from zoo.recipe import apply_exact
from zoo.sources import address
from zoo.store import Store

DEFAULT = [card.name for card in catalog.cards() if card.default]


def ask(folder, card, photo: str) -> dict[str, np.ndarray]:
    """Answer a photo with a published folder alone, as a service would."""
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    image = Image.open(folder / "golden" / photo).convert("RGB")
    names = [output.name for output in card.outputs]
    return dict(zip(names, session.run(names, {"images": apply_exact(card.recipe, image)[None]}), strict=True))


@pytest.mark.parametrize("name", DEFAULT)
def test_a_published_folder_answers_as_its_card_says(models, name):
    """The folders that `make models` published: outputs as described, parity within bounds, answers as golden."""
    card = Store(models).verify(name, catalog.find(name).version)
    check_any_batch(onnx.load(models / name / card.version / "model.onnx"))
    assert card.parity.batches == (1, 3, 8)
    allowed = card.parity.tolerance
    assert all(gap <= allowed[name] for name, gap in card.parity.max_difference.items())
    assert (card.task == "classify") == ("logits" in card.parity.max_difference)
    assert {expected.photo for expected in catalog.find(name).expect} <= {
        g.photo.partition(".")[0] for g in card.golden
    }
    for golden in card.golden:
        outputs = ask(models / name / card.version, card, golden.photo)
        for output in card.outputs:
            got = outputs[output.name]
            assert (got.dtype.name, got.shape[1:]) == (output.dtype, output.shape[1:])
        best = golden.predictions[0]
        if card.task == "classify":
            assert outputs["probabilities"][0].argmax() == best.class_id
            assert outputs["probabilities"].max() == pytest.approx(best.score, abs=1e-3)
        elif card.task == "detect":
            assert outputs["classes"][0, 0] == best.class_id
            assert outputs["scores"][0, 0] == pytest.approx(best.score, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "photo", "label", "low", "high"),
    [
        ("mobilenet_v2", "chelsea", "Egyptian cat", 0.69, 0.73),
        ("mobilenet_v2", "coffee", "espresso", 0.98, 1.0),
        ("efficientnet_lite0", "coffee", "espresso", 0.94, 0.96),
        ("yolov4_tiny", "coffee", "cup", 0.92, 0.96),
        ("deeplabv3_mobilenet_v2", "chelsea", "cat", 0.75, 0.79),
        ("u2netp", "astronaut", "salient object", 0.5, 0.6),
    ],
)
def test_known_answers(models, name, photo, label, low, high):
    """As other people's programs answer with the same checkpoints and photos."""
    card = Store(models).latest(name).card
    (golden,) = (golden for golden in card.golden if golden.photo.startswith(photo))
    assert golden.predictions[0].label == label
    assert low <= (golden.predictions[0].score or golden.predictions[0].area) <= high


@pytest.fixture
def random(tmp_path):
    """Random weights of a torchvision model on the disk: name -> its card."""

    def make(name: str, **settings):
        torch.manual_seed(0)
        network = get_model(name, weights=None, **settings)
        for layer in network.modules():
            if isinstance(layer, torch.nn.Conv2d) and layer.out_channels in {21, 1000}:
                layer.weight.data *= 10  # so that pixels and classes differ
        path = tmp_path / f"{name}.pth"
        torch.save(network.state_dict(), path)
        source = Source(file=str(path), sha256=sha256_of(path))
        return msgspec.structs.replace(card_for(name), sources={"weights": source})

    return make


@pytest.mark.parametrize(
    ("name", "settings"),
    [("squeezenet1_1", {}), ("lraspp_mobilenet_v3_large", {"weights_backbone": None, "num_classes": 21})],
)
def test_a_torchvision_model_by_name(random, tmp_path, name, settings):
    card = random(name, **settings)
    card = msgspec.structs.replace(card, recipe=msgspec.structs.replace(card.recipe, height=96, width=128))  # quicker
    steps = []
    done = export_model(card, Store(tmp_path / "models"), on_step=steps.append)
    assert steps == list(done.seconds) == ["fetch", "build", "convert", "parity", "golden", "publish"]
    assert done.folder == tmp_path / "models" / name / "1"
    served = Store(tmp_path / "models").verify(name, "1")
    assert served == done.card
    assert served.provenance.sources == {"weights": address(card.sources["weights"])}
    assert served.provenance.exported_with["torchvision"]
    assert [golden.photo for golden in served.golden] == ["chelsea.png", "coffee.png"]
    assert (served.nms, served.opset, served.precision) == (False, 20, "fp32")
    assert ask(done.folder, served, "coffee.png").keys() == {output.name for output in served.outputs}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"expect": (Expectation("coffee", "espresso", 0.9),)},
            ExportError,
            "on the photo 'coffee' the card expects 'espresso' first, with a score of at least 0.9, but",
        ),
        (
            {"tolerance": 1e-12},
            ExportError,
            r"differs from torch .* in probabilities by .*\(tolerance 1e-12\), .*so nothing was published",
        ),
        ({"labels": "coco80"}, ExportError, "is no checkpoint of squeezenet1_1"),
        ({"labels": "voc20"}, CardError, "there are no labels called 'voc20'"),
        ({"family": "theano"}, ExportError, "there is no family 'theano', expected one of .*darknet, .*torchvision"),
        ({"task": "detect"}, ExportError, "but the task detect with the 1000 labels of 'imagenet1k' needs"),
    ],
)
def test_a_failed_check_publishes_nothing(random, tmp_path, changes, error, message):
    card = msgspec.structs.replace(random("squeezenet1_1"), **changes)
    with pytest.raises(error, match=message):
        export_model(card, Store(tmp_path / "models"))
    assert not (tmp_path / "models").exists()
