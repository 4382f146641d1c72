"""What a server does with folders that are not as they should be, and with settings that cannot be met."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from service.engine.session import SessionError
from service.engine.stop import Stop
from service.models.model import LoadedModel
from service.models.repository import Repository
from service.runtime import Runtime
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.conftest import serving
from zoo.files import sha256_of
from zoo.served_card import read_served_card, write_served_card


@pytest.fixture
def store(models, tmp_path):
    """A store of its own, to be damaged: two classifiers."""
    for name in ("mobilenet_v2", "efficientnet_lite0"):
        shutil.copytree(models / name, tmp_path / "models" / name)
    return tmp_path / "models"


def flip_a_byte(folder: Path) -> None:
    path = folder / "model.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def swap_labels(folder: Path) -> None:
    """A well-formed folder whose card is wrong: only the golden answers can tell."""
    card = read_served_card(folder / "card.json")
    write_served_card(msgspec.structs.replace(card, labels=card.labels[::-1]), folder / "card.json")
    golden = [
        msgspec.structs.replace(
            answer, predictions=tuple(msgspec.structs.replace(p, class_id=p.class_id - 1) for p in answer.predictions)
        )
        for answer in card.golden
    ]
    write_served_card(msgspec.structs.replace(card, golden=tuple(golden)), folder / "card.json")


def no_graph(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"not a graph")
    card = read_served_card(folder / "card.json")
    card = msgspec.structs.replace(card, sha256=sha256_of(folder / "model.onnx"), size=11)
    write_served_card(card, folder / "card.json")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_a_byte, "model.onnx was changed"),
        (lambda folder: (folder / "card.json").write_text('{"name": 3}'), "name"),
        (lambda folder: (folder / "model.onnx").unlink(), "model.onnx is missing"),
        (no_graph, "ONNX Runtime cannot load model.onnx"),
        (swap_labels, "on its golden photo"),
    ],
    ids=["a flipped byte", "a broken card", "no file", "no graph", "wrong golden answers"],
)
def test_a_bad_folder_is_not_served_and_the_others_are(store, tmp_path, photo, damage, message):
    damage(store / "mobilenet_v2" / "1")
    with serving(tmp_path / "log", ZOOSERVE_MODELS=str(store)) as server:
        body = server.wait(503)
        assert body["ready"] is False
        assert body["models"]["mobilenet_v2"]["state"] == "failed"
        assert message in body["models"]["mobilenet_v2"]["reason"]
        assert body["models"]["efficientnet_lite0"] == {"state": "ready"}
        refused = server.client.post("/v1/classify?model=mobilenet_v2", content=photo("coffee"))
        assert refused.status_code == 503
        assert message in refused.json()["detail"]
        answer = server.client.post("/v1/classify?model=efficientnet_lite0", content=photo("coffee"))
        assert answer.json()["predictions"][0]["label"] == "espresso"
        assert 'zooserve_model_ready{model="efficientnet_lite0"} 1.0' in server.client.get("/metrics").text


@pytest.mark.parametrize("bad", [("3",), ("3", "2"), ("3", "2", "1")], ids=["newest", "two", "all"])
def test_a_server_that_starts_takes_the_newest_version_that_passes(store, bad):
    """As a server does that was running when the bad versions came."""
    folder = store / "mobilenet_v2"
    for version in ("2", "3"):
        shutil.copytree(folder / "1", folder / version)
        card = read_served_card(folder / version / "card.json")
        write_served_card(msgspec.structs.replace(card, version=version), folder / version / "card.json")
    for version in bad:
        flip_a_byte(folder / version)
    runtime = Runtime(Settings(models=str(store), watch_s=0, threads=1))
    repository = runtime.repository
    repository.load()
    entry = repository.entries["mobilenet_v2"]
    if len(bad) == 3:
        assert "3: model.onnx was changed" in entry.reason
        assert (entry.model, repository.ready) == (None, False)
        runtime.stop()
        return
    assert repository.ready
    assert entry.card.version == str(3 - len(bad))
    assert entry.refused.startswith("version 3 in the store is refused")
    shutil.rmtree(folder / "3")
    repository.reload()
    assert entry.card.version == str(3 - len(bad))
    assert entry.refused.partition(":")[0] == ("version 2 in the store is refused" if "2" in bad else "")
    runtime.stop()


def test_no_older_version_is_loaded_once_the_loading_has_to_end(store):
    shutil.copytree(store / "mobilenet_v2" / "1", store / "mobilenet_v2" / "2")
    seen = []

    def load(folder: Path, stop: Stop) -> LoadedModel:
        seen.append(folder.name)
        stop.ask()
        raise SessionError("it was stopped")

    repository = Repository(Settings(models=str(store), load="mobilenet_v2"), Metrics(), load, lambda _: None)
    repository.load()
    assert (seen, repository.entries["mobilenet_v2"].reason) == (["2"], "it was stopped")


def test_what_operating_systems_leave_in_a_folder_is_not_read(store, tmp_path):
    (store / "mobilenet_v2" / "1" / ".DS_Store").write_bytes(b"macOS")
    (store / "mobilenet_v2" / "1" / "golden" / "Thumbs.db").write_bytes(b"Windows")
    with serving(tmp_path / "log", ZOOSERVE_MODELS=str(store)) as server:
        server.wait(200)
        said = server.log.read_text()
    assert said.count("ignored, as operating systems leave them: .DS_Store, Thumbs.db") == 1


def closed(folder: Path, monkeypatch) -> None:
    """Whoever runs this may be root, to whom nothing is closed."""

    def refuse(real):
        def read(path="."):
            if Path(path) == folder:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return real(path)

        return read

    monkeypatch.setattr(os, "scandir", refuse(os.scandir))
    monkeypatch.setattr(os, "listdir", refuse(os.listdir))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (closed, "models is skipped: Permission denied"),
        (lambda store, patch: closed(store / "net", patch), "models/net is skipped: Permission denied"),
        (lambda store, patch: closed(store / "net" / "1", patch), "models/net/1 is skipped: Permission denied"),
        (lambda store, _: (shutil.rmtree(store), store.write_text("")), "models is skipped: Not a directory"),
    ],
    ids=["the store", "a model", "a version", "a file in its place"],
)
def test_a_store_that_cannot_be_read_says_why(tmp_path, monkeypatch, spoil, says):
    store = tmp_path / "models"
    (store / "net" / "1").mkdir(parents=True)
    (store / "net" / "1" / "card.json").write_text("{}")
    spoil(store, monkeypatch)
    repository = Repository(Settings(models=str(store)), Metrics(), lambda *_: None, lambda _: None)
    assert not repository.ready
    assert says in repository.problem
    assert "zooserve export --default" in repository.problem


def test_an_empty_store_says_what_to_do(tmp_path):
    with serving(tmp_path / "log", ZOOSERVE_MODELS=str(tmp_path)) as server:
        body = server.wait(503)
        assert "zooserve export --default" in body["problem"]
        assert f"0 of 0 models are ready. {body['problem']}" in server.log.read_text()
        assert server.client.post("/v1/classify", content=b"x").status_code == 404


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--port", "0"], {}, "--port"),
        (["--host", "not an address"], {}, "not an address"),
        ([], {"ZOOSERVE_THREADS": "many"}, "ZOOSERVE_THREADS=many"),
        ([], {"ZOOSERVE_HOST": "0.0.0.0"}, "--host or HOST chooses the address"),
    ],
)
def test_what_is_wrong_with_the_command_is_said_at_once(tmp_path, arguments, environment, message):

    command = [str(Path(sys.executable).with_name("zooserve")), "serve", *arguments]
    done = subprocess.run(
        command, check=False, env=os.environ | environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_said(server):
    port = server.url.rsplit(":", 1)[1]
    command = [str(Path(sys.executable).with_name("zooserve")), "serve", "--port", port]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_serving_needs_no_torch():
    """The serving install does not contain it."""
    code = """
import sys
for name in ("torch", "torchvision", "onnx", "onnxscript", "tflite"):
    sys.modules[name] = None
import service.bento, service.commands.serve, service.commands.predict
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
