"""When a published folder is still what its card would give."""

import importlib.metadata

import msgspec
import pytest

from export import provenance
from export.provenance import describe, fingerprint, is_current
from zoo.files import sha256_of
from zoo.model_card import Normalise, Source
from zoo.served_card import Golden, Output, Parity, ServedCard
from zoo.store import Store

READ = {"reader": "1.2"}
SOURCES = {"weights": Source(package="a==1", member="net.pth", sha256="a" * 64)}


@pytest.mark.parametrize(
    "changes",
    [
        {"normalise": Normalise(channels="bgr")},
        {"options": {"architecture": "resnet18"}},
        {"tolerance": 1e-3},
        {"sources": {"weights": msgspec.structs.replace(SOURCES["weights"], sha256="b" * 64)}},
        {"sources": {**SOURCES, "cfg": SOURCES["weights"]}},
    ],
)
def test_a_changed_card_is_another(make_card, changes):
    card = make_card(sources=SOURCES)
    assert fingerprint(card) == fingerprint(make_card(sources=SOURCES))
    assert fingerprint(msgspec.structs.replace(card, **changes)) != fingerprint(card)


def test_where_a_source_lies_does_not_count(make_card):
    mirror = {"weights": Source(url="https://example.org/net.pth", sha256="a" * 64)}
    assert fingerprint(make_card(sources=mirror)) == fingerprint(make_card(sources=SOURCES))


def test_your_labels_count_by_their_content(make_card, tmp_path):
    one, other = (tmp_path / name for name in ("one.txt", "other.txt"))
    one.write_text("cat\ndog\n")
    other.write_text("cat\ndog\n")
    before = fingerprint(make_card(labels=str(one)))
    assert fingerprint(make_card(labels=str(other))) == before
    one.write_text("cat\nhound\n")
    assert fingerprint(make_card(labels=str(one))) != before


@pytest.fixture
def publish(tmp_path, make_card):
    """Publish a folder made from a card; the store looks at hashes only."""
    (tmp_path / "net.pth").write_bytes(b"weights")
    (tmp_path / "model.onnx").write_bytes(b"graph")
    store = Store(tmp_path / "models")

    def publish(card, versions=READ):
        served = ServedCard(
            **{name: getattr(card, name) for name in ("name", "version", "task", "family", "title", "homepage")},
            licence=card.licence,
            labels=("0", "1"),
            recipe=card.recipe,
            outputs=(Output("probabilities", "float32", (None, 2)),),
            nms=False,
            precision="fp32",
            opset=20,
            sha256=sha256_of(tmp_path / "model.onnx"),
            size=5,
            provenance=describe(card, {"weights": tmp_path / "net.pth"}, versions),
            parity=Parity("torch", 1e-4, (1,), {}),
            golden=(Golden("cat.png", sha256_of(tmp_path / "net.pth"), ()),),
        )
        store.publish(served, {"model.onnx": tmp_path / "model.onnx", "golden/cat.png": tmp_path / "net.pth"})
        return store

    return publish


def test_a_folder_is_current_until_the_card_or_the_folder_changes(make_card, publish):
    card = make_card(sources=SOURCES)
    store = publish(card)
    assert is_current(card, store)
    assert not is_current(msgspec.structs.replace(card, tolerance=1e-3), store)
    assert not is_current(msgspec.structs.replace(card, name="other"), store)
    (store.path("net", "1") / "model.onnx").write_bytes(b"grapH")
    assert not is_current(card, store)


def test_a_folder_is_current_until_the_code_changes(make_card, publish, monkeypatch):
    card = make_card(sources=SOURCES)
    store = publish(card)
    assert is_current(card, store)
    monkeypatch.setattr(provenance, "code_of", lambda _: "0" * 64)
    assert not is_current(card, store)


@pytest.mark.parametrize("library", ["torch", "torchvision", "onnx", "onnxscript", "onnxruntime", "timm"])
def test_a_folder_is_current_until_a_library_changes(make_card, publish, monkeypatch, library):
    card = make_card(sources=SOURCES)
    version = importlib.metadata.version

    def changed(name):
        return "99.0" if name == library else version(name)

    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.0" if name == "timm" else version(name))
    store = publish(card, {"reader": "1.2", "timm": "0.9+local"})
    assert is_current(card, store)
    monkeypatch.setattr(importlib.metadata, "version", changed)
    assert not is_current(card, store)


def test_a_library_that_is_not_installed_could_not_convert_again(make_card, publish, monkeypatch):
    card = make_card(sources=SOURCES)
    store = publish(card)

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert is_current(card, store)


def test_onnxruntime_may_be_the_one_for_gpus(make_card, publish, monkeypatch):
    card = make_card(sources=SOURCES)
    store = publish(card)
    version = importlib.metadata.version

    def gpu(name):
        if name == "onnxruntime":
            raise importlib.metadata.PackageNotFoundError(name)
        return version("onnxruntime" if name == "onnxruntime-gpu" else name)

    monkeypatch.setattr(importlib.metadata, "version", gpu)
    assert is_current(card, store)


def test_a_folder_of_before_is_read_and_made_again(make_card, publish):
    """One tolerance for all outputs, as card.json had it, and another fingerprint."""
    card = make_card(sources=SOURCES)
    store = publish(card)
    path = store.path("net", "1") / "card.json"
    old = msgspec.json.decode(path.read_bytes())
    old["parity"]["tolerance"] = 0.01
    old["provenance"]["made_from"] = "1" * 64
    path.write_bytes(msgspec.json.encode(old))
    assert store.verify("net", "1").parity.tolerance == 0.01
    assert not is_current(card, store)


def test_provenance_names_sources_and_versions(make_card, publish, tmp_path):
    found = publish(make_card(sources=SOURCES)).verify("net", "1").provenance
    assert found.sources == {"weights": "pkg:pypi/a@1#net.pth"}
    assert found.sha256 == {"weights": sha256_of(tmp_path / "net.pth")}
    assert found.exported_at.endswith("+00:00")
    assert {"zooserve", "torch", "onnx", "onnxscript", "onnxruntime", "reader"} <= found.exported_with.keys()
