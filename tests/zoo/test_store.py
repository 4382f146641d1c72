"""The store: folders appear whole, and every later change to one is found."""

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from zoo import verification
from zoo.errors import StoreError
from zoo.store import Store, entries_or_say, read_folder, verify_folder


@pytest.fixture
def store(models) -> Store:
    return Store()


def hidden(root: Path) -> list[str]:
    return [path.name for path in root.glob("*/.*") if path.name != ".lock"]


def test_a_published_model_is_found_and_intact(store, models, make):
    for name, version in [("net", "2"), ("net", "10"), ("net", "1"), ("a", "1")]:
        served = make(name, version, graph=f"{name} {version}".encode())
        assert store.publish(served.card, served.files) == models / name / version
    assert [(entry.name, entry.version) for entry in store.entries()] == [
        ("a", "1"),
        ("net", "1"),
        ("net", "2"),
        ("net", "10"),
    ]
    assert store.latest("net").version == "10"
    assert store.verify("net", "2") == make("net", "2", graph=b"net 2").card
    assert verify_folder(store.path("a", "1")).name == "a"
    assert hidden(models) == []


def test_files_may_be_copied_from_the_disk(store, served, tmp_path):
    (tmp_path / "graph").write_bytes(b"graph")
    path = store.publish(served.card, served.files | {"model.onnx": tmp_path / "graph"})
    assert (path / "model.onnx").read_bytes() == b"graph"
    assert verify_folder(path) == served.card


def test_the_root_is_an_environment_variable(monkeypatch, tmp_path):
    monkeypatch.delenv("ZOOSERVE_MODELS", raising=False)
    assert Store().root == Path("models")
    monkeypatch.setenv("ZOOSERVE_MODELS", str(tmp_path))
    assert Store().root == tmp_path
    assert Store(tmp_path / "other").root == tmp_path / "other"
    assert Store(tmp_path / "nothing here").entries() == []


def test_a_model_that_was_not_exported_is_an_error(store):
    with pytest.raises(StoreError, match="holds no net: run `zooserve export net`"):
        store.latest("net")
    with pytest.raises(StoreError, match="does not exist: run `zooserve export net`"):
        store.verify("net", "1")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda folder: flip(folder / "model.onnx"),
            r"model\.onnx was changed: its sha256 is \w{64}, card\.json says \w{64}",
        ),
        (lambda folder: flip(folder / "golden/coffee.png"), r"golden/coffee\.png was changed"),
        (lambda folder: (folder / "model.onnx").unlink(), r"model\.onnx is missing"),
        (lambda folder: (folder / "golden/coffee.png").unlink(), r"golden/coffee\.png is missing"),
        (lambda folder: (folder / "card.json").unlink(), r"card\.json cannot be read: No such file"),
        (lambda folder: (folder / "card.json").write_text("{}"), r"missing required field `name`"),
        (lambda folder: (folder / "model.bin").write_text("?"), r"model\.bin is not named in card\.json"),
        (lambda folder: (folder / "model.onnx").write_bytes(b""), r"model\.onnx was changed"),
    ],
)
def test_damaged_files_are_named(store, served, damage, message):
    folder = store.publish(served.card, served.files)
    damage(folder)
    with pytest.raises(StoreError, match=message) as error:
        store.verify("net", "1")
    assert str(folder) in str(error.value)
    assert str(error.value).endswith("Delete the folder and run `zooserve export net`")


def test_all_faults_are_named_at_once(store, served):
    folder = store.publish(served.card, served.files)
    flip(folder / "model.onnx")
    (folder / "golden/coffee.png").unlink()
    with pytest.raises(StoreError, match=r"coffee\.png is missing; model\.onnx was changed"):
        verify_folder(folder)


def test_a_folder_under_another_name_is_refused(store, served):
    folder = store.publish(served.card, served.files)
    folder.rename(folder.with_name("2"))
    with pytest.raises(StoreError, match="holds net version 1: rename it to net/1"):
        store.verify("net", "2")


def test_a_damaged_card_does_not_hide_the_others(store, make):
    for name in ("a", "b"):
        served = make(name)
        store.publish(served.card, served.files)
    (store.path("a", "1") / "card.json").write_text("{")
    a, b = store.entries()
    assert a.card is None
    assert "card.json" in a.problem
    assert b.card is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.onnx": b"other"}, r"model\.onnx was changed"),
        ({"extra.txt": b"?"}, r"extra\.txt is not named"),
        ({"golden/coffee.png": Path("/nowhere/coffee.png")}, "No such file"),
    ],
)
def test_files_that_differ_from_the_card_are_not_published(store, models, served, change, message):
    with pytest.raises((StoreError, OSError), match=message):
        store.publish(served.card, served.files | change)
    assert store.entries() == []
    assert hidden(models) == []


def test_a_wrong_size_is_refused(store, served):
    with pytest.raises(StoreError, match=r"model\.onnx has 5 bytes, card\.json says 6"):
        store.publish(msgspec.structs.replace(served.card, size=6), served.files)


def test_a_version_is_replaced_completely(store, models, make):
    for graph in (b"old", b"newer"):
        served = make(graph=graph)
        store.publish(served.card, served.files)
    assert (store.path("net", "1") / "model.onnx").read_bytes() == b"newer"
    assert hidden(models) == []


KILLED = """
import os, signal, sys
from pathlib import Path
import zoo.store
from zoo.served_card import read_served_card
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
rename = Path.rename
if sys.argv[1] == "writing":
    zoo.store._sync = die
else:
    Path.rename = lambda path, target: die() if path.name.endswith(".new") else rename(path, target)
folder = Path(sys.argv[2])
zoo.store.Store().publish(
    read_served_card(folder / "card.json"),
    {"model.onnx": folder / "model.onnx", "golden/coffee.png": folder / "golden/coffee.png"},
)
"""


@pytest.mark.parametrize("moment", ["writing", "between the renames"])
def test_a_killed_publish_stays_invisible_and_is_cleaned_up(store, models, make, tmp_path, moment):
    old, new = make(graph=b"old"), make(graph=b"new")
    store.publish(old.card, old.files)
    prepared = Store(tmp_path / "prepared").publish(new.card, new.files)
    killed = subprocess.run([sys.executable, "-c", KILLED, moment, str(prepared)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert hidden(models)
    for entry in store.entries():  # the old folder, or, between the renames, none
        assert verify_folder(entry.path) == old.card
    served = make(version="2")
    store.publish(served.card, served.files)
    assert store.verify("net", "1") == old.card
    assert hidden(models) == []


def test_publishers_wait_for_each_other(store, make):
    candidates = [make(graph=os.urandom(100_000)) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda served: store.publish(served.card, served.files), candidates))
    assert store.verify("net", "1") in [served.card for served in candidates]


def put_sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


STRANGE = {
    "a pipe": (os.mkfifo, "not a regular file"),
    "a socket": (lambda path: os.mknod(path, stat.S_IFSOCK | 0o600), "not a regular file"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    "a terabyte": (put_sparse, "bytes"),
    "a link to nothing": (lambda path: path.symlink_to("nowhere"), "No such file"),
    "a circle": (lambda path: path.symlink_to(path), "symbolic links"),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", STRANGE)
@pytest.mark.parametrize("file", ["card.json", "model.onnx", "golden/coffee.png"])
@pytest.mark.parametrize("read", [verify_folder, read_folder])
def test_only_regular_files_of_the_right_size_are_read(store, served, file, kind, read):
    put, message = STRANGE[kind]
    folder = store.publish(served.card, served.files)
    (folder / file).unlink()
    put(folder / file)
    with pytest.raises(StoreError, match=message) as error:
        read(folder)
    assert file in str(error.value)
    assert [entry.name for entry in store.entries()] == ["net"]


@pytest.mark.parametrize(
    "name", [".weights.bin", "golden/.hidden", ".hidden/weights", "golden/link", "golden/\x1b[31m\n"]
)
def test_hidden_files_are_verified(store, served, name):
    folder = store.publish(served.card, served.files)
    (folder / name).parent.mkdir(exist_ok=True)
    if name.endswith("link"):
        (folder / name).symlink_to(folder)
    else:
        (folder / name).write_bytes(b"weights")
    with pytest.raises(StoreError, match=r"is not named in card\.json") as error:
        verify_folder(folder)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "golden/._photo.png", "._model.onnx", "golden/desktop.ini"])
def test_files_of_operating_systems_are_ignored_and_reported(store, served, name, capsys):
    folder = store.publish(served.card, served.files)
    before = store.look()
    (folder / name).write_bytes(b"not read")
    look = store.look()
    assert look.entries[0].stamps == before.entries[0].stamps, "a server does not load the model again"
    assert (before.ignored, look.skipped) == ([], [])
    assert look.ignored == [f"{folder}: ignored, as operating systems leave them: {Path(name).name}"]
    assert verify_folder(folder).name == "net"
    assert set(read_folder(folder).files) == set(served.files)
    entries_or_say(store)
    assert "as operating systems leave them" in capsys.readouterr().err


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "._x"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_other_kinds_of_files_with_such_names_are_verified(store, served, name, kind):
    folder = store.publish(served.card, served.files)
    if kind == "link":
        (folder / name).symlink_to(folder / "model.onnx")
    elif kind == "pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).mkdir()
        (folder / name / "weights").write_bytes(b"weights")
    with pytest.raises(StoreError, match=r"is not named in card\.json"):
        verify_folder(folder)


def test_a_folder_of_very_many_files_is_refused(store, served):
    folder = store.publish(served.card, served.files)
    for i in range(1100):
        (folder / f"{i}").touch()
    with pytest.raises(StoreError, match="more than 1000 files"):
        verify_folder(folder)
    assert store.entries() == []


def test_the_verified_bytes_are_returned(store, served):
    folder = store.publish(served.card, served.files)
    contents = read_folder(folder)
    assert (contents.card, contents.files) == (served.card, served.files)


@pytest.mark.timeout(20)
def test_hashing_a_growing_file_ends(store, served, monkeypatch):
    folder = store.publish(served.card, served.files)
    (folder / "golden/coffee.png").unlink()
    (folder / "golden/coffee.png").symlink_to("/dev/zero")
    monkeypatch.setattr(verification, "open_regular", lambda path: path.open("rb"))
    monkeypatch.setattr(verification, "_LARGEST_GOLDEN", 10_000_000)
    with pytest.raises(StoreError, match=r"may have 10,000,000"):
        verify_folder(folder)


def test_stray_folders_are_skipped_with_a_line(store, served, models, monkeypatch):
    store.publish(served.card, served.files)
    for name in (
        "lost+found",
        "__MACOSX/1",
        ".snapshot/1",
        "Net/1",
        "évil\n\x1b[2J/1",
        "empty/1",
        "net/v2",
        "net/1.bak",
        "o",
    ):
        (models / name).mkdir(parents=True)
    (models / "dangling").symlink_to("nowhere")
    (models / "circle").symlink_to("circle")
    (models / "net" / "3").symlink_to("nowhere")
    (models / "self" / "1").mkdir(parents=True)
    (models / "self" / "1" / "again").symlink_to(models / "self" / "1")
    (models / "README").write_text("?")
    forbidden = (models / "o", models / "self" / "1")
    scandir, listdir = os.scandir, os.listdir

    def closed(real):
        def read(path="."):
            if Path(path) in forbidden:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return real(path)

        return read

    monkeypatch.setattr(os, "scandir", closed(scandir))  # whoever runs this may be root, to whom nothing is closed
    monkeypatch.setattr(os, "listdir", closed(listdir))
    entries, skipped, _ = store.look()
    assert [(entry.name, entry.version) for entry in entries] == [("net", "1")]
    assert [line for line in skipped if not line.isprintable()] == []
    said = {line.partition(" is skipped")[0].removeprefix(f"{models}/") for line in skipped}
    assert said == {
        "lost+found", "__MACOSX", ".snapshot", "Net", r"évil\n\x1b[2J", "empty/1", "net/v2", "net/1.bak", "o",
        "dangling", "circle", "net/3", "self/1",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("damage", "missing"),
    [
        (lambda folder: (folder / "card.json").unlink(), "card.json is missing"),
        (lambda folder: (folder / "card.json").write_bytes(b""), "card.json is missing"),
        (lambda folder: (folder / "model.onnx").unlink(), "model.onnx is missing"),
        (lambda folder: (folder / "model.onnx").write_bytes(b"gra"), "model.onnx has 3 of 5 bytes"),
        (lambda folder: shutil.rmtree(folder / "golden"), "golden/coffee.png is missing"),
        (lambda folder: (folder / "golden/coffee.png").write_bytes(b""), "golden/coffee.png is empty"),
        (lambda folder: (folder / "golden/coffee.png").write_bytes(b"other"), ""),
        (lambda folder: (folder / "model.onnx").write_bytes(b"other graph"), ""),
        (lambda folder: (folder / "card.json").write_text('{"name": 3}'), ""),
    ],
)
def test_incomplete_folders_are_distinguished_from_invalid_ones(store, served, damage, missing):
    folder = store.publish(served.card, served.files)
    before = store.entries()[0]
    assert before.missing == ""
    damage(folder)
    entry = store.entries()[0]
    assert entry.missing == missing
    assert entry.stamps != before.stamps, "a change is seen whatever file it is in"


def test_a_card_is_read_again_when_it_changes(store, served):
    folder = store.publish(served.card, served.files)
    assert store.entries()[0].card == served.card
    (folder / "card.json").write_text("{")
    assert store.entries()[0].card is None
    store.publish(served.card, served.files)
    assert store.entries()[0].card == served.card


@pytest.mark.timeout(60)
def test_thousands_of_folders_are_scanned(store, served, models):
    for i in range(2000):
        (models / f"m{i}" / "1").mkdir(parents=True)
    store.publish(served.card, served.files)
    assert [entry.name for entry in store.entries()] == ["net"]
