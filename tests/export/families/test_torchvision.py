"""Torchvision's models by name: their cards, and the real loading code on checkpoints of the same structure.

Torchvision's own files need its hub. These tests save random weights in its files' form and fetch them over HTTP.
"""

import functools
import hashlib
import http.server
import re
import threading

import msgspec
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.models import get_model, get_model_weights

from export.families.torchvision import build, card_for, names
from export.heads import Pixels
from zoo import catalog
from zoo.errors import ExportError, SourceError
from zoo.labels import read_labels
from zoo.model_card import Source
from zoo.recipe import apply_exact
from zoo.sources import fetch_all

TOO_LARGE = {"regnet_y_128gf", "vit_h_14"}


@pytest.mark.parametrize(("name", "size"), [("resnet50", 102_540_417), ("resnet18", 46_830_571)])
def test_the_publishers_own_file_is_not_too_large(name, size):
    """torchvision knows sizes in MiB to three decimals."""
    assert size <= card_for(name).sources["weights"].size < size + 2000


def test_every_classifier_and_segmenter_is_there():
    expected = {"alexnet", "vgg16", "vgg19", "googlenet", "resnet18", "resnet152", "vit_b_16", "swin_t"}
    assert expected | {"deeplabv3_resnet50", "fcn_resnet50", "lraspp_mobilenet_v3_large"} < set(names())
    assert not {name for name in names() if name.startswith("quantized") or "rcnn" in name or "raft" in name}


@pytest.mark.parametrize("name", names())
def test_a_card_by_name(name):
    if name in TOO_LARGE:
        with pytest.raises(ExportError, match=rf"{name}: 2\.4 GiB of weights; one ONNX file holds at most 2 GiB"):
            card_for(name)
        return
    card = card_for(name)
    weights = get_model_weights(name).DEFAULT
    preset = weights.transforms()
    # Written and read again, a card passes all its own checks.
    assert msgspec.json.decode(msgspec.json.encode(card), type=type(card)) == card
    assert card.sources["weights"].url == weights.url
    assert card.sources["weights"].url.endswith(f"-{card.sources['weights'].sha256_prefix}.pth")
    labels = tuple(label.replace("__background__", "background") for label in weights.meta["categories"])
    assert read_labels(card.labels) == labels
    np.testing.assert_allclose(np.array(card.normalise.mean) / 255, preset.mean, atol=1e-6)
    np.testing.assert_allclose(np.array(card.normalise.std) / 255, preset.std, atol=1e-6)
    if card.task == "segment":
        assert (card.recipe.resize, card.recipe.height, card.recipe.width) == ("letterbox", 520, 520)
    else:
        assert [card.recipe.height] == [card.recipe.width] == preset.crop_size
        assert [card.recipe.short_side] == preset.resize_size


@pytest.mark.parametrize("name", ["resnet50", "efficientnet_b0", "inception_v3", "efficientnet_v2_l"])
@pytest.mark.parametrize("photo", ["chelsea", "astronaut"])
def test_pixels_are_those_of_the_preset(name, photo):
    card = card_for(name)
    image = Image.open(catalog.sample(photo)).convert("RGB")
    expected = get_model_weights(name).DEFAULT.transforms()(image)
    got = Pixels(card.normalise)(torch.from_numpy(apply_exact(card.recipe, image).copy()[None]))[0]
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["resnet51", "fasterrcnn_resnet50_fpn", "quantized_resnet50", "r3d_18", "../resnet50"])
def test_unknown_names_have_no_card(name):
    assert card_for(name) is None


def test_weights_under_another_licence_say_so():
    assert card_for("resnet50").licence.weights == "BSD-3-Clause"
    swag = [name for name in names() if "SWAG" in get_model_weights(name).DEFAULT.name]
    assert set(swag) <= TOO_LARGE  # whoever lifts the limit: their licence is CC-BY-NC-4.0, as `card_for` has it


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """Save a network's random weights as torchvision names its files, and serve them: () -> a card's source."""
    folder = tmp_path_factory.mktemp("hub")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

        def upload(name: str, state: dict) -> Source:
            torch.save(state, folder / "part")
            digest = hashlib.sha256((folder / "part").read_bytes()).hexdigest()[:8]
            (folder / "part").rename(folder / f"{name}-{digest}.pth")
            return Source(url=f"http://127.0.0.1:{server.server_port}/{name}-{digest}.pth", sha256_prefix=digest)

        yield upload
        server.shutdown()


@pytest.fixture(autouse=True)
def cache(request):
    """What these tests fetch is of no use afterwards, so it goes into a cache of their own."""
    if "hub" in request.fixturenames:
        tmp_path, monkeypatch = request.getfixturevalue("tmp_path"), request.getfixturevalue("monkeypatch")
        monkeypatch.setenv("ZOOSERVE_CACHE", str(tmp_path / "cache"))


def original(name: str, **settings) -> torch.nn.Module:
    torch.manual_seed(0)
    return get_model(name, weights=None, **settings).eval()


# As torchvision's checkpoints are: with the auxiliary heads of training.
CASES = {
    "resnet18": {},
    "squeezenet1_1": {},
    "googlenet": {"transform_input": True, "aux_logits": True, "init_weights": False},
    "inception_v3": {"transform_input": True, "aux_logits": True, "init_weights": False},
    "lraspp_mobilenet_v3_large": {"weights_backbone": None, "num_classes": 21},
    "deeplabv3_mobilenet_v3_large": {"weights_backbone": None, "num_classes": 21, "aux_loss": True},
}


@pytest.mark.parametrize("name", CASES)
def test_a_checkpoint_over_http(hub, name):
    network = original(name, **CASES[name])
    card = msgspec.structs.replace(card_for(name), sources={"weights": hub(name, network.state_dict())})
    built = build(card, fetch_all(card.sources))
    assert built.reference_name == f"torch {torch.__version__}"
    assert built.versions == {"torchvision": torchvision.__version__}
    x = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, got = network(x), built.module(x)
    segmenter = isinstance(expected, dict)
    views = ["activation"] if "squeezenet" in name else ["activation", "embedding"]
    assert list(got) == ["logits", *([] if segmenter else views)]
    torch.testing.assert_close(got["logits"], expected["out"] if segmenter else expected)


def test_googlenets_input_is_transformed_unless_the_card_says_no(hub):
    network = original("googlenet", **CASES["googlenet"])
    card = msgspec.structs.replace(card_for("googlenet"), sources={"weights": hub("googlenet", network.state_dict())})
    files = fetch_all(card.sources)
    plain = msgspec.structs.replace(card, options={"architecture": "googlenet", "transform_input": False})
    x = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        transformed, untouched = build(card, files).module(x)["logits"], build(plain, files).module(x)["logits"]
        torch.testing.assert_close(transformed, network(x))
    assert not torch.allclose(transformed, untouched)


def test_the_hash_in_the_name_is_checked(hub):
    source = hub("resnet18", {"fc.weight": torch.zeros(1)})
    wrong = msgspec.structs.replace(source, sha256_prefix="0" * 8)
    assert fetch_all({"weights": source})["weights"].is_file()
    with pytest.raises(SourceError, match="0" * 8):
        fetch_all({"weights": wrong})


def test_densenets_old_names(hub):
    network = original("densenet121")
    new_name = re.compile(r"(denselayer\d+\.(?:norm|conv))([12]\.)")
    old = {new_name.sub(r"\1.\2", key): value for key, value in network.state_dict().items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    card = msgspec.structs.replace(card_for("densenet121"), sources={"weights": hub("densenet121", old)})
    built = build(card, fetch_all(card.sources))
    expected = network.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in built.module.network.state_dict().items())


@pytest.mark.parametrize(
    ("name", "other", "message"),
    [
        ("squeezenet1_1", "resnet18", r'Missing key\(s\) in state_dict: "features.0.weight"'),
        ("resnet18", "squeezenet1_1", r'Missing key\(s\) in state_dict: "conv1.weight"'),
        ("resnet34", "resnet18", r'Missing key\(s\) in state_dict: "layer1.2.conv1.weight"'),
        ("resnet18", "resnet34", r'Unexpected key\(s\) in state_dict: "layer1.2.conv1.weight"'),
    ],
)
def test_a_checkpoint_of_another_architecture_is_refused(hub, name, other, message):
    card = msgspec.structs.replace(card_for(name), sources={"weights": hub(other, original(other).state_dict())})
    with pytest.raises(ExportError, match=rf"{other}-.*\.pth is no checkpoint of {name}\. .*{message}"):
        build(card, fetch_all(card.sources))


def test_an_unknown_architecture_is_refused(make_card, tmp_path):
    card = make_card("classify", options={"architecture": "resnet51"})
    with pytest.raises(ExportError, match=r"net: the option `architecture` is 'resnet51', .* resnet50,"):
        build(card, {"weights": tmp_path / "none"})


@pytest.mark.parametrize("architecture", ["mobilenet_v2"])
def test_real_weights(architecture):
    card = catalog.find(architecture)
    network = build(card, fetch_all(card.sources)).module
    image = Image.open(catalog.sample("coffee")).convert("RGB")
    x = Pixels(card.normalise)(torch.from_numpy(apply_exact(card.recipe, image).copy()[None]))
    with torch.no_grad():
        probabilities = network(x)["logits"].softmax(1)[0]
    assert read_labels(card.labels)[probabilities.argmax()] == "espresso"
    assert probabilities.max() == pytest.approx(0.99, abs=0.01)
