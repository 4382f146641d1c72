"""Two commands never write one folder of results at once, on an object store either. Locks of the dead do not count."""

import threading
from contextlib import suppress
from time import sleep

import fsspec
import pytest

import scoring.lock
from scoring.lock import FOLDER, locked
from scoring.storage import Folder, StorageError


@pytest.fixture(params=["folder", "object store"])
def out(request, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring.lock, "_HEARTBEAT_S", 0.05)
    monkeypatch.setattr(scoring.lock, "_DEAD_S", 0.5)
    if request.param == "folder":
        return str(tmp_path)
    fsspec.filesystem("memory").store.clear()
    return "memory://results"


def test_a_folder_that_is_written_is_refused_and_free_afterwards(out):
    with locked(Folder(out)):
        sleep(0.2)
        with pytest.raises(StorageError, match="is being written by another process"), locked(Folder(out)):
            pass
    with locked(Folder(out)):
        pass
    assert Folder(out).names(FOLDER) == []


def test_commands_that_begin_at_once_are_never_inside_together(out):
    inside, most, lock = 0, 0, threading.Lock()
    start = threading.Barrier(4)

    def work():
        nonlocal inside, most
        for _ in range(5):
            start.wait(30)
            with suppress(StorageError), locked(Folder(out)):
                with lock:
                    inside += 1
                    most = max(most, inside)
                sleep(0.1)
                with lock:
                    inside -= 1

    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most <= 1
    with locked(Folder(out)):
        pass


@pytest.mark.parametrize("out", ["object store"], indirect=True)
def test_the_lock_of_a_process_that_died_is_removed(out):
    fsspec.filesystem("memory").pipe(f"/results/{FOLDER}/0", b"machine, process 1, heartbeat 7")
    with locked(Folder(out)):
        (own,) = Folder(out).names(FOLDER)
        assert own != "0"


@pytest.mark.parametrize("out", ["object store"], indirect=True)
def test_who_sees_another_that_began_at_once_gives_way(out, monkeypatch):
    write = scoring.lock._write

    def write_both(folder, name, number):
        write(folder, name, number)
        write(folder, f"{FOLDER}/other", 0)

    monkeypatch.setattr(scoring.lock, "_write", write_both)
    with pytest.raises(StorageError, match="another process began at the same time"), locked(Folder(out)):
        pass
    assert Folder(out).names(FOLDER) == ["other"]


@pytest.mark.parametrize("out", ["object store"], indirect=True)
@pytest.mark.parametrize("beats", [True, False])
def test_who_was_stopped_and_lost_the_lock_ends_and_writes_nothing(out, monkeypatch, beats):
    if not beats:  # it writes before its next heartbeat
        monkeypatch.setattr(scoring.lock, "_HEARTBEAT_S", 60)
    folder, store = Folder(out), fsspec.filesystem("memory")
    with locked(folder) as check:
        check()
        store.rm(f"/results/{FOLDER}/{folder.names(FOLDER)[0]}")
        if beats:
            sleep(0.3)
            with pytest.raises(StorageError, match="another one has taken its lock"):
                check()
        with pytest.raises(StorageError, match="another one has taken its lock"), folder.writing("_plans/1.arrow"):
            pass
        assert store.find("/results") == []
    with locked(Folder(out)):
        pass


@pytest.mark.parametrize("out", ["object store"], indirect=True)
def test_the_heartbeat_goes_on_after_any_error_of_the_store(out, monkeypatch):
    beats, write = [], scoring.lock._write

    def failing(folder, name, number):
        beats.append(number)
        if number == 1:
            raise RuntimeError("the library's own")
        write(folder, name, number)

    monkeypatch.setattr(scoring.lock, "_write", failing)
    with locked(Folder(out)) as check:
        for _ in range(100):
            if len(beats) > 2:
                break
            sleep(0.02)
        check()
    assert beats[:3] == [0, 1, 2]
