"""Files of results appear whole or not at all; images that cannot be fetched say why, and none waits for ever."""

import gzip
import http.server
import os
import shutil
import signal
import threading
import time

import fsspec
import pytest

from scoring.fetch import UnreadableError, fetch
from scoring.storage import Folder, StorageError
from service.errors import RequestError


def test_a_file_appears_at_the_end(tmp_path):
    out = Folder(str(tmp_path))
    with out.writing("a") as file:
        file.write(b"whole")
        assert out.names() == []
    assert out.names() == ["a"]
    assert (tmp_path / "a").read_bytes() == b"whole"


def test_a_file_has_the_mode_of_others_and_the_umask_stays_as_it_is(tmp_path, monkeypatch):
    """All threads share the umask: what another one writes while it is 0 can be changed by everybody."""
    (tmp_path / "other").touch()
    monkeypatch.setattr(os, "umask", lambda _: pytest.fail("the umask is changed"))
    with Folder(str(tmp_path)).writing("a") as file:
        file.write(b"whole")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    out = Folder(str(tmp_path))
    (tmp_path / "a").write_bytes(b"old")

    def write_half():
        with out.writing("a") as file:
            file.write(b"half")
            raise OSError(28, "the disk is full")

    with pytest.raises(StorageError, match=f"{tmp_path}/a cannot be written: the disk is full.*same command continues"):
        write_half()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_ctrl_c_leaves_no_part_of_an_object(monkeypatch):
    copy = shutil.copyfileobj

    def interrupted(spool, stream, size):
        stream.write(spool.read(1))
        signal.raise_signal(signal.SIGINT)
        copy(spool, stream, size)

    def write():
        with Folder("memory://results").writing("a") as file:
            file.write(b"whole")

    monkeypatch.setattr("scoring.storage.shutil.copyfileobj", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # where tests run in the background it is ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            write()
    finally:
        signal.signal(signal.SIGINT, before)
    assert fsspec.filesystem("memory").cat("/results/a") == b"whole"


def test_what_a_killed_process_left_is_swept(tmp_path):
    half = ".0123456789abcdef.part"
    left, others = [half, f"_plans/{half}"], ["part-2.parquet", "_plans/1.arrow", f"inner/{half}", ".download.part"]
    for name in left + others:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"half")
    Folder(str(tmp_path)).sweep("_plans")
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == set(others)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "Is a directory"),
        (os.mkfifo, "not a file"),
    ],
)
def test_why_a_local_image_cannot_be_read(tmp_path, make, reason):
    make(tmp_path / "a.jpg")
    with pytest.raises(UnreadableError, match=reason):
        fetch(str(tmp_path / "a.jpg"), 100, 1.0)


def test_a_file_above_the_limit_is_refused_as_over_http(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"x" * 101)
    with pytest.raises(RequestError) as error:
        fetch(str(tmp_path / "a.jpg"), 100, 1.0)
    assert error.value.reason == "too_large"


def test_a_file_that_claims_to_be_empty_is_read_up_to_the_limit():
    with pytest.raises(RequestError):
        fetch("/proc/self/pagemap", 100, 1.0)  # 2**48 bytes


def test_what_a_library_raises_is_said(monkeypatch):
    class Odd:
        def open_input_file(self, path):
            raise RuntimeError(f"token of {path} has expired")

    monkeypatch.setattr("scoring.fetch.open_address", lambda address: (Odd(), address))
    with pytest.raises(UnreadableError, match="token of odd://a has expired"):
        fetch("odd://a", 100, 1.0)


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers 404; serves `/ok`, and `/packed` compressed; drips `/slow` for ever."""

    def do_GET(self):
        self.send_response(404 if self.path == "/gone" else 200)
        if self.path == "/packed":
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        if self.path == "/packed":
            self.wfile.write(gzip.compress(bytes(10_000_000)))
        if self.path == "/ok":
            self.wfile.write(b"image")
        while self.path == "/slow":
            try:
                self.wfile.write(b"x")
            except OSError:
                return
            time.sleep(0.05)

    def log_message(self, *_):
        pass


@pytest.fixture
def web():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_an_image_of_a_web_server(web):
    assert fetch(f"{web}/ok", 100, 5.0) == b"image"


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("{web}/gone", "answers 404"),
        ("{web}/slow", "no answer within 0.5 s"),
        ("{web}/packed", r"compressed \(gzip\)"),
        ("http://127.0.0.1:9/a.jpg", "refused"),
        ("nosuch://bucket/a.jpg", "no file system for nosuch://"),
        ("github://bucket/a.jpg", "no file system for github://"),
        ("webhdfs://host/a.jpg", "begin with a bucket, webhdfs://bucket/path"),
        ("local://host/a.jpg", "begin with a bucket"),
        ("abfss://container@account.dfs.core.windows.net/a.jpg", "no file system for abfss://"),
    ],
)
def test_why_a_remote_image_cannot_be_read(web, address, reason):
    with pytest.raises(UnreadableError, match=reason):
        fetch(address.format(web=web), 100_000, 0.5)
