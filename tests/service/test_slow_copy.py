"""Folders that are copied into the store file by file while the server serves: not whole yet means not there yet."""

import shutil
import threading
import time
from pathlib import Path

import msgspec
import pytest

from service.errors import Reason, RequestError
from service.models.entry import State
from service.runtime import Runtime
from service.settings import Settings
from service.supervisor import SHARED
from tests.conftest import serving
from zoo.served_card import read_served_card
from zoo.store import Store

CARD, GRAPH, GOLDEN = "card.json", "model.onnx", "golden"
ORDERS = ((CARD, GOLDEN, GRAPH), (GRAPH, GOLDEN, CARD), (GOLDEN, CARD, GRAPH), (GRAPH, CARD, GOLDEN))


@pytest.fixture
def store(models, tmp_path) -> Path:
    """A store of its own with one classifier."""
    shutil.copytree(models / "lenet5", tmp_path / "models" / "lenet5")
    return tmp_path / "models"


@pytest.fixture
def prepare(models, tmp_path):
    """Make a folder that is to be copied: the classifier under another name or version."""

    def make(name: str, version: str = "1", **changes) -> Path:
        source = models / "lenet5" / "1"
        card = msgspec.structs.replace(read_served_card(source / CARD), name=name, version=version, **changes)
        files = {GRAPH: source / GRAPH} | {f"golden/{g.photo}": source / GOLDEN / g.photo for g in card.golden}
        return Store(tmp_path / "prepared").publish(card, files)

    return make


@pytest.fixture
def repository(store):
    runtime = Runtime(Settings(models=str(store), watch_s=0, threads=1))
    runtime.repository.load()
    assert runtime.repository.ready
    yield runtime.repository
    runtime.stop()


@pytest.fixture
def look(repository):
    """What the server does now and then."""
    return lambda: repository._look_again(watching=True)


def steps(source: Path, target: Path, order=(CARD, GOLDEN, GRAPH), *, keep_times: bool = True):
    """Copy a folder; stop before every file, in the middle of it, and after all but the last."""
    target.mkdir(parents=True, exist_ok=True)
    yield "an empty folder"
    files = [f for name in order for f in (sorted((source / name).iterdir()) if name == GOLDEN else [source / name])]
    for file in files:
        copy = target / file.relative_to(source)
        copy.parent.mkdir(exist_ok=True)
        data = file.read_bytes()
        for part in (0, len(data) // 2, len(data)):
            copy.write_bytes(data[:part])
            if keep_times:
                shutil.copystat(file, copy)
            if part < len(data) or file != files[-1]:
                yield f"{part} bytes of {copy.name}"


@pytest.mark.parametrize("keep_times", [True, False], ids=["old times", "new times"])
@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
def test_a_model_is_served_when_it_is_whole(repository, look, store, prepare, order, keep_times):
    for step in steps(prepare("other"), store / "other" / "1", order, keep_times=keep_times):
        look()
        assert repository.ready, step
        assert repository.get("classify", "lenet5", None), step
        assert repository.entries.get("other") is None or repository.entries["other"].state is State.LOADING, step
    look()
    assert repository.entries["other"].state is State.READY
    assert repository.ready


@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
def test_a_version_is_served_when_it_is_whole_and_the_old_one_until_then(repository, look, store, prepare, order):
    for step in steps(prepare("lenet5", "2"), store / "lenet5" / "2", order):
        look()
        assert repository.ready, step
        assert repository.entries["lenet5"].refused == "", step
        assert repository.get("classify", "lenet5", None).card.version == "1", step
    look()
    assert repository.get("classify", "lenet5", None).card.version == "2"


def test_a_version_that_is_copied_over_in_place_is_loaded_when_it_is_whole(repository, look, store, prepare):
    for step in steps(prepare("lenet5", title="Another"), store / "lenet5" / "1", (CARD, GRAPH, GOLDEN)):
        look()
        assert repository.ready, step
        assert repository.get("classify", "lenet5", None), step
    look()
    assert repository.get("classify", "lenet5", None).card.title == "Another"


@pytest.mark.parametrize("file", [CARD, GRAPH, "golden"])
def test_what_is_wrong_and_no_longer_changes_is_refused_and_tried_again_when_anything_changes(
    repository, look, store, prepare, file
):
    source = prepare("other")
    shutil.copytree(source, store / "other" / "1")
    damaged = next((store / "other" / "1" / file).iterdir()) if file == GOLDEN else store / "other" / "1" / file
    good = damaged.read_bytes()
    damaged.write_bytes(b"?" + good[1:])
    look()
    assert repository.entries["other"].state is State.LOADING, "it may still be changing"
    look()
    assert repository.entries["other"].state is State.FAILED
    assert repository.ready, "the others answer as before"
    before = repository.entries["other"].loading
    look()
    assert repository.entries["other"].loading is before, "it is not tried again before it changes"
    damaged.write_bytes(good)
    shutil.copystat(source / CARD, damaged)
    look()
    assert repository.entries["other"].state is State.READY
    assert repository.ready


def test_a_bad_folder_that_is_removed_is_forgotten(repository, look, store, prepare):
    shutil.copytree(prepare("other"), store / "other" / "1")
    (store / "other" / "1" / GRAPH).write_bytes(b"?" * 1_000_000)
    look()
    look()
    assert repository.entries["other"].state is State.FAILED
    shutil.rmtree(store / "other")
    look()
    assert repository.ready
    assert "other" not in repository.entries


BAD_MODELS = pytest.mark.parametrize(
    ("before", "load", "ready"),
    [
        pytest.param(["lenet5"], "", True, id="added to one that answers"),
        pytest.param(["lenet5", "other"], "", False, id="there at the start"),
        pytest.param(["lenet5"], "lenet5,other", False, id="the settings name it"),
        pytest.param([], "", False, id="the first one"),
    ],
)


def a_bad_model(models, tmp_path, prepare):
    """An empty store, and by name the folders that a test copies into it: a good model's, and a bad one's."""
    store = tmp_path / "models"
    store.mkdir()
    bad = prepare("other")
    (bad / GRAPH).write_bytes(b"?" * 1_000_000)
    return store, {"lenet5": models / "lenet5", "other": bad.parent}


@BAD_MODELS
def test_a_bad_model_takes_readiness_from_a_server_that_began_with_it_or_needs_it(
    models, tmp_path, prepare, before, load, ready
):
    """Else one bad folder in a volume would take all servers of it out of the load balancer."""
    store, sources = a_bad_model(models, tmp_path, prepare)
    for name in before:
        shutil.copytree(sources[name], store / name)
    repository = (runtime := Runtime(Settings(models=str(store), load=load, watch_s=0, threads=1))).repository
    repository.load()
    assert repository.ready == (before == ["lenet5"] and not load)
    if "other" not in before:
        shutil.copytree(sources["other"], store / "other")
    for _ in range(2):
        repository._look_again(watching=True)
    assert repository.entries["other"].state is State.FAILED
    assert repository.ready is ready
    runtime.stop()


@BAD_MODELS
def test_a_process_that_replaces_another_is_as_ready_as_that_was(
    models, tmp_path, prepare, monkeypatch, before, load, ready
):
    """Else an engine that is started again would take its server out of the load balancer."""
    monkeypatch.setenv(SHARED, str(tmp_path / "shared"))
    store, sources = a_bad_model(models, tmp_path, prepare)
    for name in (before, ["other"]):
        for each in {*name} - {path.name for path in store.iterdir()}:
            shutil.copytree(sources[each], store / each)
        runtime = Runtime(Settings(models=str(store), load=load, watch_s=0, threads=1))
        runtime.repository.load()
        runtime.unloaded.note_served(runtime.repository.served)
        runtime.stop()
    assert runtime.repository.entries["other"].state is State.FAILED
    assert runtime.repository.ready is ready


def test_an_administrator_is_told_what_is_missing(repository, store, prepare):
    shutil.copytree(prepare("other"), store / "other" / "1")
    (store / "other" / "1" / GRAPH).unlink()
    for _ in range(2):
        with pytest.raises(
            RequestError, match=r"`other`: version 1 in the store is not whole: model\.onnx is"
        ) as refusal:
            repository.reload("other")
        assert refusal.value.reason is Reason.REFUSED
        assert repository.ready
        assert "other" not in repository.entries


def test_a_server_that_starts_serves_the_latest_version_that_is_whole(store, prepare):
    shutil.copytree(prepare("lenet5", "2"), store / "lenet5" / "2")
    (store / "lenet5" / "2" / GRAPH).unlink()
    runtime = Runtime(Settings(models=str(store), watch_s=0, threads=1))
    runtime.repository.load()
    assert runtime.repository.get("classify", None, None).card.version == "1"
    runtime.stop()


def test_the_others_are_ready_while_a_new_model_is_loaded(repository, look, store, prepare, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()
    test = repository._loader._self_test

    def slow(model):
        begun.set()
        assert go_on.wait(30)
        test(model)

    monkeypatch.setattr(repository._loader, "_self_test", slow)
    shutil.copytree(prepare("other"), store / "other" / "1")
    looking = threading.Thread(target=look)
    looking.start()
    assert begun.wait(30)
    assert repository.entries["other"].state is State.LOADING
    assert repository.ready
    with pytest.raises(RequestError, match="is being loaded"):
        repository.get("classify", "other", None)
    go_on.set()
    looking.join()
    assert repository.entries["other"].state is State.READY


def test_nothing_is_refused_before_it_was_tried(repository, look, store, prepare, monkeypatch):
    """A card that is cut off is found while another new model is loaded, which takes long."""
    seen = []
    monkeypatch.setattr(repository._loader, "_self_test", lambda _: seen.append(repository.ready))
    shutil.copytree(prepare("another"), store / "another" / "1")
    shutil.copytree(prepare("other"), store / "other" / "1")
    (store / "other" / "1" / CARD).write_text("{")
    look()
    assert seen == [True]
    assert repository.ready


def test_a_server_that_starts_is_not_ready_before_its_models_are(store, prepare, monkeypatch):
    shutil.copytree(prepare("other"), store / "other" / "1")
    runtime = Runtime(Settings(models=str(store), watch_s=0, threads=1))
    assert not runtime.repository.ready
    ready = []
    monkeypatch.setattr(runtime.repository._loader, "_self_test", lambda _: ready.append(runtime.repository.ready))
    runtime.repository.load()
    assert ready == [False, False]
    assert runtime.repository.ready
    runtime.stop()


@pytest.mark.timeout(120)
def test_a_slow_copy_does_not_affect_requests(store, models, tmp_path):
    """The card first, a pause that is longer than a few looks, then all the rest."""
    digit = (models / "lenet5" / "1" / GOLDEN / "digit_7.png").read_bytes()
    with serving(tmp_path / "log", ZOOSERVE_MODELS=str(store), ZOOSERVE_WATCH_S="0.5") as server:
        server.wait(200)
        statuses, over = [], threading.Event()

        def ask() -> None:
            while not over.wait(0.05):
                answer = server.client.post("/v1/classify?model=lenet5", content=digit)
                statuses.append((server.client.get("/readyz").status_code, answer.status_code))

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            target = store / "mobilenet_v2" / "1"
            target.mkdir(parents=True)
            shutil.copy2(models / "mobilenet_v2" / "1" / CARD, target)
            time.sleep(3)
            for file in sorted(path for path in (models / "mobilenet_v2" / "1").rglob("*") if path.is_file()):
                copy = target / file.relative_to(models / "mobilenet_v2" / "1")
                copy.parent.mkdir(exist_ok=True)
                shutil.copy2(file, copy)
                time.sleep(0.3)
            end = time.monotonic() + 30
            while server.client.get("/v1/models/mobilenet_v2").json().get("state") != "ready":
                assert time.monotonic() < end, server.log.read_text()
                time.sleep(0.1)
        finally:
            over.set()
            asking.join()
        assert set(statuses) == {(200, 200)}
        assert server.log.read_text().count("is loaded when it is whole") == 1


def test_stray_folders_are_skipped_with_a_line_each(store, caplog):
    for name in ("lost+found", "__MACOSX/1", ".snapshot/1", "Net/1", "empty/1", "lenet5/v2"):
        (store / name).mkdir(parents=True, mode=0o700)
    (store / "dangling").symlink_to("nowhere")
    (store / "lenet5" / "3").symlink_to("nowhere")
    runtime = Runtime(Settings(models=str(store), watch_s=0, threads=1))
    runtime.repository.load()
    for _ in range(3):
        runtime.repository._look_again(watching=True)
    assert runtime.repository.ready
    assert runtime.repository.entries.keys() == {"lenet5"}
    lines = [record.getMessage() for record in caplog.records if " is skipped: " in record.getMessage()]
    assert len(lines) == len(set(lines)) == 8
    runtime.stop()
