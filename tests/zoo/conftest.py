"""A web server on this machine that can be told to misbehave, and a cache and a store of each test's own."""

import hashlib
import re
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from zoo.card import Licence, Recipe
from zoo.served_card import Golden, Output, Parity, Prediction, Provenance, ServedCard


@dataclass
class Server:
    """Serves `files` by path.

    `break_after` lists, request by request, after how many bytes the connection breaks off; the first answer stalls
    after `stall_after` bytes; the first `busy` requests are refused. Without `declares` no length is said. Who does not
    give the `password`, of a user called `me`, is refused. A file that is a number is an answer with that status.
    """

    files: dict[str, bytes | int] = field(default_factory=dict)
    break_after: list[int] = field(default_factory=list)
    stall_after: int = 0
    busy: int = 0
    password: str = ""
    ranges: bool = True
    declares: bool = True
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "text/html"
    url: str = ""
    seen: list[tuple[str, str | None]] = field(default_factory=list)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range")
        self.seen.append((handler.path, wanted))
        if len(self.seen) <= self.busy:
            handler.send_response(503)
            for name, value in self.headers.items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        body = self.files.get(handler.path, 404)
        expected = f"Basic {b64encode(f'me:{self.password}'.encode()).decode()}"
        if self.password and handler.headers.get("Authorization") != expected:
            body = 401
        if isinstance(body, int):
            handler.send_error(body)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and self.ranges else 0
        if start >= len(body) > 0:
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(body)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        rest = body[start:]
        handler.send_response(206 if start else 200)
        if self.declares:
            handler.send_header("Content-Length", str(len(rest)))
        for name, value in self.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Type", self.content_type)
        handler.end_headers()
        if self.break_after:
            handler.wfile.write(rest[: self.break_after.pop(0)])
            handler.wfile.flush()
            handler.connection.close()
            return
        if self.stall_after and len(self.seen) == 1:
            handler.wfile.write(rest[: self.stall_after])
            handler.wfile.flush()
            time.sleep(0.5)
            return
        handler.wfile.write(rest)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, args=(0.02,))
        thread.start()
        yield state
        http.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("ZOOSERVE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store."""
    monkeypatch.setenv("ZOOSERVE_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@dataclass
class Served:
    """What an export hands to the store. The store looks at hashes only, so the graph may be any bytes."""

    card: ServedCard
    files: dict[str, bytes]


def make_served(name: str = "net", version: str = "1", graph: bytes = b"graph") -> Served:
    photo = b"photo"
    card = ServedCard(
        name=name,
        version=version,
        task="classify",
        family="torchvision",
        title="Net",
        homepage="",
        licence=Licence("MIT", "BSD-3-Clause"),
        labels=("cat", "dog"),
        recipe=Recipe(224, 224, "stretch"),
        outputs=(Output("probabilities", "float32", (None, 2)),),
        nms=False,
        precision="fp32",
        opset=20,
        sha256=hashlib.sha256(graph).hexdigest(),
        size=len(graph),
        provenance=Provenance(
            {"weights": "file:net.pth"}, {"weights": "0" * 64}, "2026-11-20T00:00:00Z", {"torch": "2.15"}
        ),
        parity=Parity("torch 2.15", 1e-4, (1, 3), {"probabilities": 1e-6}),
        golden=(Golden("coffee.png", hashlib.sha256(photo).hexdigest(), (Prediction(0, "cat", 0.9),)),),
    )
    return Served(card, {"model.onnx": graph, "golden/coffee.png": photo})


@pytest.fixture
def served() -> Served:
    return make_served()


@pytest.fixture
def make() -> Callable[..., Served]:
    return make_served
