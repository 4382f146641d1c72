"""Folders of models that would block, fill or deceive the server: it starts, and answers for the others meanwhile."""

import io
import json
import math
import os
import shutil
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.attack import GROWTH, attacked
from tests.conftest import serving
from tests.service.hostile_models import (
    endless_constant,
    endless_run,
    identity,
    slow_folding,
    unknown_operator,
    with_external_data,
    write_folder,
)


@pytest.fixture
def store(models, tmp_path) -> Path:
    """A store of its own with one good classifier."""
    shutil.copytree(models / "lenet5", tmp_path / "models" / "lenet5")
    return tmp_path / "models"


@pytest.fixture(scope="module")
def digit(models) -> bytes:
    return (models / "lenet5/1/golden/digit_7.png").read_bytes()


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def answers(server, digit: bytes) -> bool:
    """Whether the good model is served, rightly."""
    answer = server.client.post("/v1/classify?model=lenet5", content=digit, headers={"content-type": "image/png"})
    return answer.status_code == 200 and answer.json()["predictions"][0]["label"] == "7"


def state(server, name: str) -> dict:
    return server.client.get("/readyz").json()["models"].get(name, {})


def put_socket(path: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o600)  # unlike `bind`, it takes a long path


def put_folder(path: Path) -> None:
    path.mkdir()


def put_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def put_sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


STRANGE = {"pipe": os.mkfifo, "socket": put_socket, "folder": put_folder, "device": put_device, "sparse": put_sparse}


def replace_with_strange(store: Path) -> list[str]:
    """Make models of which one file is no regular file, for every kind and every file; return their names."""
    names = []
    for kind, put in STRANGE.items():
        for file in ("card.json", "model.onnx", "golden/tensors.npz"):
            name = f"{kind}_{Path(file).stem}"
            path = write_folder(store, name, identity()) / file
            path.unlink()
            put(path)
            names.append(name)
    return names


@pytest.mark.timeout(180)
def test_pipes_and_devices_do_not_block_the_store(store, digit, tmp_path):
    names = replace_with_strange(store)
    with serving(tmp_path / "log", ZOOSERVE_MODELS=str(store), ZOOSERVE_WATCH_S="0.3") as server:
        body = server.wait(503)
        with attacked(server) as seen:
            for name in names:
                assert body["models"][name]["state"] == "failed", name
            assert answers(server, digit)
            write_folder(store, "newer", identity())  # the store is still watched
            wait_for(lambda: state(server, "newer").get("state") == "ready")
            os.mkfifo(store / "lenet5" / "1" / "golden" / "pipe")  # and what comes later blocks nobody either
            wait_for(lambda: "pipe is not named" in state(server, "lenet5").get("refused", ""))
            assert answers(server, digit)
        seen.check()


@pytest.mark.parametrize("command", ["list", "verify"])
def test_the_commands_end_as_well(store, command):
    names = replace_with_strange(store)
    zooserve = str(Path(sys.executable).with_name("zooserve"))
    done = subprocess.run(
        [zooserve, command, "--models", str(store)], capture_output=True, text=True, timeout=120, check=False
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == (1 if command == "verify" else 0), done.stderr
    assert [name for name in (*names, "lenet5") if name not in done.stdout] == []


@pytest.mark.timeout(180)
@pytest.mark.parametrize("graph", [endless_run, endless_constant, slow_folding], ids=lambda graph: graph.__name__)
def test_a_graph_that_does_not_end_is_refused_and_the_others_are_served(store, digit, tmp_path, graph):
    write_folder(store, "a_loop", graph())
    settings = {"ZOOSERVE_LOAD_S": "8", "ZOOSERVE_WATCH_S": "0.3", "ZOOSERVE_ADMIN_KEYS": "admin-key"}
    with serving(tmp_path / "log", ZOOSERVE_MODELS=str(store), **settings) as server:
        wait_for(lambda: server.log.exists() and "lenet5 is ready" in server.log.read_text())
        with attacked(server) as seen:
            assert answers(server, digit)
            wait_for(lambda: state(server, "a_loop")["state"] == "failed")
            assert "longer to load than ZOOSERVE_LOAD_S=8 allows" in state(server, "a_loop")["reason"]
            write_folder(store, "newer", identity())
            wait_for(lambda: state(server, "newer").get("state") == "ready")
            assert answers(server, digit)
            shutil.rmtree(store / "a_loop")
            wait_for(lambda: "a_loop" not in server.client.get("/readyz").json()["models"])
            assert server.client.get("/readyz").status_code == 200
        # What a graph's constants take is its own: ONNX Runtime cannot be asked to end their folding.
        seen.check(growth=math.inf if graph is slow_folding else GROWTH)


@pytest.mark.timeout(180)
def test_weights_in_another_file_are_refused(store, digit, tmp_path):
    """The file that is named is hidden, beside the card or in the server's working directory: nothing reads it."""
    for name, location in (("hidden", ".w.bin"), ("outside", "../../w.bin"), ("working", "w.bin")):
        folder = write_folder(store, name, with_external_data("initializer", location))
        (folder / location).write_bytes(np.ones(4, np.float32).tobytes())
    (store / "hidden/1/.w.bin").unlink()
    with serving(tmp_path / "log", ZOOSERVE_MODELS=str(store), ZOOSERVE_WATCH_S="0.3") as server:
        models = server.wait(503)["models"]
        with attacked(server) as seen:
            assert "keeps weights in another file" in models["hidden"]["reason"]
            assert "keeps weights in another file" in models["outside"]["reason"]
            assert "w.bin is not named in card.json" in models["working"]["reason"]
            assert answers(server, digit)
        seen.check()


@pytest.mark.timeout(120)
def test_names_write_no_lines_and_no_colours_into_the_log(store, digit, tmp_path):
    evil = "evil\nERROR made up\x1b[2J\u202e"
    for name in (evil, "Net", "x" * 200):
        write_folder(store, name, identity())
    folder = write_folder(store, "good", identity())
    (folder / evil).touch()
    text = (folder / "card.json").read_text()
    folder = write_folder(store, "card", identity())
    (folder / "card.json").write_text(text.replace('"homepage"', f'"{json.dumps(evil)[1:-1]}"'))
    write_folder(store, "node", unknown_operator(evil))
    with serving(tmp_path / "log", ZOOSERVE_MODELS=str(store), ZOOSERVE_WATCH_S="0.3") as server:
        models = server.wait(503)["models"]
        assert {name: model["state"] for name, model in models.items()} == {
            "lenet5": "ready", "good": "failed", "card": "failed", "node": "failed",
        }  # fmt: skip
        assert answers(server, digit)
        (store / "lenet5/1" / evil).touch()
        wait_for(lambda: state(server, "lenet5").get("refused"))
    log = server.log.read_text()
    assert "\x1b[2J" not in log
    assert "\u202e" not in log
    assert not any(line.startswith("ERROR made up") for line in log.splitlines())
    assert log.count(r"evil\nERROR made up\x1b[2J\u202e") >= 4
    assert len(log.splitlines()) < 100


def zip_of(size: int, method: int) -> bytes:
    """An archive whose one array unpacks to so many zeros."""
    buffer, array = io.BytesIO(), io.BytesIO()
    np.save(array, np.zeros((size // 16, 4), np.float32))
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("in/x.npy", array.getvalue())
    return buffer.getvalue()


def array_of(shape: str) -> bytes:
    """An archive whose array says that it has another shape than its bytes."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("in/x.npy", b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header.encode())
    return buffer.getvalue()


@pytest.mark.timeout(120)
def test_golden_tensors_have_bounds(store, digit, tmp_path):
    goldens = {
        "deflated": (zip_of(400_000_000, zipfile.ZIP_DEFLATED), "unpacks to 400,000,"),
        "bzip2": (zip_of(200_000_000, zipfile.ZIP_BZIP2), "another way"),
        "lzma": (zip_of(200_000_000, zipfile.ZIP_LZMA), "another way"),
        "none": (b"no archive", "not an archive"),
        "huge": (array_of("(4000000000000, 4)"), ""),
        "empty": (array_of("(0, 4)"), "proves nothing"),
        "pickled": (array_of("(1, 4)").replace(b"'<f4'", b"'|O' "), ""),
    }
    for name, (golden, _) in goldens.items():
        write_folder(store, name, identity(), golden=golden)
    with serving(tmp_path / "log", ZOOSERVE_MODELS=str(store), ZOOSERVE_WATCH_S="0.3") as server:
        models = server.wait(503)["models"]
        for name, (_, message) in goldens.items():
            assert models[name]["state"] == "failed"
            assert message in models[name]["reason"]
        with attacked(server) as seen:
            shutil.copytree(store / "deflated", store / "again")  # and while it serves
            text = (store / "again/1/card.json").read_text()
            (store / "again/1/card.json").write_text(text.replace('"deflated"', '"again"'))
            wait_for(lambda: state(server, "again").get("state") == "failed")
            assert answers(server, digit)
        seen.check()
