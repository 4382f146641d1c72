"""Reads that do not end: those behind them are in time, and the process does not wait for them."""

import asyncio
import threading
from pathlib import Path

import pytest

import scoring.readers
from scoring.fetch import UnreadableError
from scoring.readers import Readers
from scoring.storage import StorageError


@pytest.fixture
def storage(monkeypatch):
    """A storage that does not answer for `stuck` until the event is set."""
    answers = threading.Event()

    def fetch(address, limit, timeout_s):
        if address == "stuck":
            answers.wait()
        return address.encode()

    monkeypatch.setattr(scoring.readers, "fetch", fetch)
    monkeypatch.setattr(scoring.readers, "_GRACE_S", 0.0)
    yield answers
    answers.set()


def test_other_images_are_read_in_time(storage):
    async def read():
        readers = Readers(2, 100, 0.2)
        found = await asyncio.gather(*map(readers.read, ["stuck"] * 5 + ["good"] * 5), return_exceptions=True)
        assert all(isinstance(one, UnreadableError) for one in found[:5])
        assert [data for data, _ in found[5:]] == [b"good"] * 5

    asyncio.run(read())


def test_as_many_threads_remain(storage):
    others = {thread for thread in threading.enumerate() if thread.name == "fetch"}

    def alive():
        return len({thread for thread in threading.enumerate() if thread.name == "fetch"} - others)

    async def read():
        readers = Readers(2, 100, 0.1)
        with pytest.raises(UnreadableError, match=r"no answer within 0\.1 s"):
            await readers.read("stuck")
        assert alive() == 3
        storage.set()
        while alive() > 2:
            await asyncio.sleep(0.01)
        assert (await readers.read("good"))[0] == b"good"

    asyncio.run(read())


def test_a_storage_that_never_answers_ends_the_run(storage, monkeypatch):
    monkeypatch.setattr(scoring.readers, "_MOST_STUCK", 3)

    async def read():
        readers = Readers(2, 100, 0.05)
        return await asyncio.gather(*map(readers.read, ["stuck"] * 6), return_exceptions=True)

    kinds = {type(one) for one in asyncio.run(read())}
    assert kinds == {UnreadableError, StorageError}


def test_a_run_ends_although_a_read_does_not(tmp_path, models, photos):
    import socket
    import subprocess
    import sys

    with socket.create_server(("127.0.0.1", 0)) as server:
        ends = threading.Event()

        def drip():
            connection, _ = server.accept()
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            while not ends.wait(0.1):  # a header that never ends: each byte is within httpx's time-out
                connection.send(b"x")

        threading.Thread(target=drip, daemon=True).start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/a.jpg"
        (tmp_path / "list.txt").write_text(f"{address}\n{photos}/0.png\n")
        command = [str(Path(sys.executable).with_name("zooserve")), "score", "lenet5", str(tmp_path / "list.txt")]
        options = ["--out", str(tmp_path / "out"), "--models", str(models), "--timeout", "1"]
        try:
            assert subprocess.run([*command, *options], timeout=60, check=False).returncode == 0
        finally:
            ends.set()
