"""Timm's models by name: all their cards, and the real loading code on checkpoints of the same structure.

Timm's own files need its hub. These tests save random weights in its files' form, and ask a small hub of their own.
"""

import hashlib
import http.server
import json
import threading
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

timm = pytest.importorskip("timm", reason="timm is not installed: install zooserve's extra `timm`")
from safetensors.torch import save_file  # noqa: E402 - comes with timm
from timm.data import create_transform  # noqa: E402

from export.families import timm as family  # noqa: E402
from export.families.timm import build, card_for, describe, names  # noqa: E402
from export.heads import Pixels  # noqa: E402
from export.pipeline import export_model  # noqa: E402
from zoo import catalog  # noqa: E402
from zoo.errors import ExportError, LicenceError  # noqa: E402
from zoo.libraries import described  # noqa: E402
from zoo.model_card import Source  # noqa: E402
from zoo.recipe import apply_exact  # noqa: E402
from zoo.sources import fetch_all  # noqa: E402
from zoo.sources.hub import HubFile  # noqa: E402
from zoo.store import Store  # noqa: E402

# One of each kind, a few hundred thousand weights each: timm keeps them for tests.
SMALL = {
    "test_resnet.r160_in1k": True,
    "test_efficientnet.r160_in1k": True,
    "test_convnext.r160_in1k": False,
    "test_vit.r160_in1k": False,
}


@pytest.fixture
def any_hub(monkeypatch):
    """A hub that has every file, so that all cards can be written at once."""
    source = Source(url="https://hub.example/file.safetensors", sha256="0" * 64, size=1000)
    monkeypatch.setattr(family, "look_up", lambda repository, filename: HubFile(source, "LicenseRef-of-the-hub"))


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub on this machine, with the API of the Hugging Face Hub: (repository, file) -> None."""
    monkeypatch.setenv("ZOOSERVE_CACHE", str(tmp_path / "cache"))
    files = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            body = files.get(self.path.partition("?")[0])
            self.send_response(200 if body else 404)
            self.send_header("content-length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")

        def upload(repository: str, path: Path) -> None:
            body, commit = path.read_bytes(), "c" * 40
            lfs = {"sha256": hashlib.sha256(body).hexdigest(), "size": len(body)}
            answer = {"sha": commit, "siblings": [{"rfilename": path.name, "lfs": lfs}], "cardData": {"license": "mit"}}
            files[f"/api/models/{repository}"] = json.dumps(answer).encode()
            files[f"/{repository}/resolve/{commit}/{path.name}"] = body

        yield upload
        server.shutdown()


def original(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    network = timm.create_model(timm.get_pretrained_cfg(name).architecture, pretrained=False).eval()
    network.get_classifier().weight.data *= 50  # random weights know no class: let them be sure of something
    return network


def saved(network: torch.nn.Module, path: Path) -> Source:
    save = save_file if path.suffix == ".safetensors" else torch.save
    save(network.state_dict(), path)
    return Source(file=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def test_cards_of_all_names(any_hub):
    """Each name gives a card that passes its own checks, or a sentence."""
    outcomes = Counter()
    for name in timm.list_models(pretrained=True):
        try:
            card = card_for(name)
        except ExportError as error:
            why = str(error)
            assert why.startswith(f"{name}: ")
            outcomes[next(word for word in ("no classifier", "classes", "crop mode") if word in why)] += 1
            continue
        assert msgspec.json.decode(msgspec.json.encode(card), type=type(card)) == card
        assert (card.name, card.options) == (name, {"architecture": name})
        outcomes["card"] += 1
    assert outcomes["card"] > 1250
    assert outcomes["crop mode"] < 20
    assert outcomes["card"] + outcomes["crop mode"] == len(names())


def test_all_are_described_without_the_hub(monkeypatch, tmp_path):
    monkeypatch.setenv("ZOOSERVE_CACHE", str(tmp_path))
    monkeypatch.setattr(family, "look_up", lambda *_: pytest.fail("the hub was asked"))
    known, refused = {}, Counter()
    for name in names():
        try:
            known[name] = describe(name)
        except ExportError as error:
            refused[str(error).startswith(f"{name}: ") and "crop mode" in str(error)] += 1
    assert len(known) > 1250
    assert set(refused) == {True}
    assert all(one.sources["weights"].startswith("https://") for one in known.values())
    licences = Counter(one.licence.weights for one in known.values())
    assert licences["Apache-2.0"] > 900
    assert licences["LicenseRef-unknown"] < 30


def test_what_is_described_is_what_the_card_says(hub, tmp_path):
    name = "test_resnet.r160_in1k"
    saved(original(name), tmp_path / "model.safetensors")
    hub(f"timm/{name}", tmp_path / "model.safetensors")
    before = describe(name)
    assert (before.size, before.sources["weights"].partition("/resolve/")[2]) == (None, "main/model.safetensors")
    card = card_for(name)
    assert describe(name) == described(card)  # what the hub said is kept
    assert (before.title, before.licence) == (card.title, card.licence)


@pytest.mark.parametrize(
    ("name", "licence"),
    [
        ("resnet18.a1_in1k", "Apache-2.0"),
        ("resnet18.tv_in1k", "BSD-3-Clause"),
        ("convnextv2_atto.fcmae_ft_in1k", "CC-BY-NC-4.0"),
        ("mobileone_s0.apple_in1k", "LicenseRef-mobileone-license"),
        ("edgenext_base.usi_in1k", "MIT"),
    ],
)
def test_licences_are_spdx(any_hub, name, licence):
    assert card_for(name).licence.weights == licence


def test_a_licence_that_timm_does_not_know_is_the_hubs(any_hub):
    unsaid = [name for name in names() if timm.get_pretrained_cfg(name).license in {None, "unknown"}]
    assert unsaid
    licences = {card_for(name).licence.weights for name in unsaid}
    assert licences <= {"LicenseRef-of-the-hub", "LicenseRef-unknown"}


def test_a_hash_in_the_files_name_is_enough():
    card = card_for("resnet18.a1_in1k")
    assert card.sources["weights"].url.endswith("/resnet18_a1_0-d63eafa0.pth")
    assert card.sources["weights"].sha256_prefix == "d63eafa0"


def test_without_a_tag_it_is_the_default(any_hub):
    card = card_for("convnext_atto")
    assert (card.name, card.options["architecture"]) == ("convnext_atto", "convnext_atto.d2_in1k")


@pytest.mark.parametrize("name", ["resnet19", "resnet18.nobodys_tag", "../resnet18", ""])
def test_unknown_names_have_no_card(name):
    assert card_for(name) is None
    assert describe(name) is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("convnext_base.fb_in22k", "it has 21841 classes"),
        ("vit_base_patch14_dinov2.lvd142m", "it has no classifier, it only extracts features"),
        ("dm_nfnet_f0.dm_in1k", "'squash' to 90.0%, which no recipe of zooserve says"),
    ],
)
def test_what_cannot_be_served_says_why(any_hub, name, message):
    with pytest.raises(ExportError, match=f"^{name}: .*{message}"):
        card_for(name)


# Bilinear and bicubic, cut and squashed, the means of three data sets.
@pytest.mark.parametrize(
    "name",
    [
        "resnet18.tv_in1k",
        "convnext_atto.d2_in1k",
        "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
        "beit_base_patch16_384.in22k_ft_in22k_in1k",
    ],
)
@pytest.mark.parametrize("photo", ["chelsea", "astronaut"])
def test_pixels_are_those_of_timms_evaluation(any_hub, name, photo):
    card = card_for(name)
    image = Image.open(catalog.sample(photo)).convert("RGB")
    config = timm.get_pretrained_cfg(name).to_dict()
    expected = create_transform(**timm.data.resolve_data_config({}, pretrained_cfg=config))(image)
    got = Pixels(card.normalise)(torch.from_numpy(apply_exact(card.recipe, image).copy()[None]))[0]
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("name", "ending"), [*((name, "safetensors") for name in SMALL), ("test_vit.r160_in1k", "pth")]
)
def test_a_checkpoint(any_hub, tmp_path, name, ending):
    network = original(name)
    card = msgspec.structs.replace(card_for(name), sources={"weights": saved(network, tmp_path / f"net.{ending}")})
    built = build(card, fetch_all(card.sources))
    assert built.versions == {"timm": timm.__version__}
    x = torch.randn(2, 3, card.recipe.height, card.recipe.width, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, got = network(x), built.module(x)
    torch.testing.assert_close(got["logits"], expected)
    assert ("activation" in got) is SMALL[name]


def test_from_the_hub_to_a_served_folder(hub, tmp_path):
    """The whole way, for one whose weights ask to be accepted."""
    name = "test_resnet.r160_in1k"
    saved(original(name), tmp_path / "model.safetensors")
    hub(f"timm/{name}", tmp_path / "model.safetensors")
    card = card_for(name)
    assert card.sources["weights"].sha256
    unsaid = msgspec.structs.replace(card, licence=msgspec.structs.replace(card.licence, weights="LicenseRef-unknown"))
    with pytest.raises(LicenceError, match="--accept-license LicenseRef-unknown"):
        export_model(unsaid, Store(tmp_path / "models"))
    served = export_model(card, Store(tmp_path / "models")).card
    assert [output.name for output in served.outputs] == ["probabilities", "activation", "embedding"]
    assert served.provenance.exported_with["timm"] == timm.__version__
    assert np.ptp([one.score for one in served.golden[0].predictions]) > 0.01  # it answers something


def test_no_route_to_the_hub(monkeypatch, tmp_path):
    monkeypatch.setenv("ZOOSERVE_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    wanted = r"test_vit\.r160_in1k: a card needs the sha256 .* cannot .* 'test_vit\.r160_in1k', Recipe\(height=160"
    with pytest.raises(ExportError, match=wanted):
        card_for("test_vit.r160_in1k")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"options": {"architecture": "resnet19"}}, "`architecture` is 'resnet19', which timm .* does not know"),
        ({"options": {}}, "`architecture` is ''"),
        ({"options": {"architecture": "resnet18"}}, r"is no checkpoint of resnet18\. .*Missing key\(s\) in state_dict"),
        (
            {"options": {"architecture": "vit_tiny_patch16_224"}},
            r"takes images of \(224, 224\) pixels, .* \(160, 160\)",
        ),
        ({"labels": "coco80"}, r"is no checkpoint of test_resnet\.r160_in1k\. .*size mismatch for fc\.weight"),
    ],
)
def test_what_does_not_fit_is_refused(any_hub, tmp_path, changes, message):
    name = "test_resnet.r160_in1k"
    source = saved(original(name), tmp_path / "net.safetensors")
    card = msgspec.structs.replace(card_for(name), sources={"weights": source}, **changes)
    with pytest.raises(ExportError, match=message):
        build(card, fetch_all(card.sources))


def test_an_empty_checkpoint_is_refused_and_nothing_fetched(any_hub, tmp_path):
    torch.save({}, tmp_path / "empty.pth")
    with pytest.raises(ExportError, match="it is empty"):
        build(card_for("test_resnet.r160_in1k"), {"weights": tmp_path / "empty.pth"})


def test_a_broken_safetensors_file_is_refused(any_hub, tmp_path):
    (tmp_path / "net.safetensors").write_bytes(b"not at all")
    with pytest.raises(ExportError, match=r"net\.safetensors is no safetensors file: "):
        build(card_for("test_resnet.r160_in1k"), {"weights": tmp_path / "net.safetensors"})
