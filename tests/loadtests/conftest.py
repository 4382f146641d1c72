"""A small HTTP server of this machine, in a thread of its own, that does what the path says; a real one far away."""

import asyncio
import contextlib
import shutil
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from loadtests.client import Request
from loadtests.target import Target
from tests.loadtests.reach import Far, NoNamespaceError, far_server, namespace


@pytest.fixture(scope="module", autouse=True)
def _servers_end_at_once() -> Iterator[None]:
    """Those that load tests start: nobody asks them any more, so they need not answer for another two seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOOSERVE_DRAIN_S", "0.1")
        yield


class Tiny:
    """Answers by path: `/ok`, `/status/429`, `/wait/SECONDS`, `/chunked`, `/last` (then closes), `/break`, `/noise`.

    `/v1/models` is answered with `models`. Any other path is answered with `status` and `body`, after `seconds` of
    work, one request at a time.
    """

    models = b'{"models": [{"name": "m", "version": "1", "task": "classify", "state": "ready", "default": true}]}'

    def __init__(self) -> None:
        self.status, self.body, self.seconds = "200", b"ok", 0.0
        self.paths: Counter[str] = Counter()
        self.bodies: Counter[bytes] = Counter()
        self.connections = 0
        self.at_once = self.most_at_once = 0
        self.address = Target.at("127.0.0.1", 0)
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        assert self._started.wait(10)

    def get(self, path: str, body: bytes = b"") -> Request:
        return Request("POST", path, {"Content-Type": "text/plain"}, body)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _run(self) -> None:
        self._loop, self._stop, self._work = asyncio.get_running_loop(), asyncio.Event(), asyncio.Lock()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = Target.at("127.0.0.1", server.sockets[0].getsockname()[1])
        self._started.set()
        await self._stop.wait()
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                path = head.split(" ")[1]
                length = next(line for line in head.split("\r\n") if line.lower().startswith("content-length:"))
                self.paths[path] += 1
                self.bodies[await reader.readexactly(int(length.partition(":")[2]))] += 1
                self.at_once += 1
                self.most_at_once = max(self.most_at_once, self.at_once)
                goes_on = await self._answer(path, writer)
                self.at_once -= 1
                if not goes_on:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, path: str, writer: asyncio.StreamWriter) -> bool:
        _, kind, *more = path.split("/")
        if kind == "break":
            return False
        if kind == "noise":
            writer.write(b"this is not HTTP\r\n\r\n")
            return False
        if kind == "chunked":
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
            return True
        if kind == "wait":
            await asyncio.sleep(float(more[0]))
        status, body = more[0] if kind == "status" else "200", self.models if path == "/v1/models" else b"ok"
        if kind not in ("ok", "wait", "status", "last") and path != "/v1/models":
            async with self._work:
                await asyncio.sleep(self.seconds)
            status, body = self.status, self.body
        end = "Connection: close\r\n" if kind == "last" else ""
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nX-Path: {path}\r\n{end}\r\n"
        writer.write(head.encode() + body)
        return kind != "last"


@pytest.fixture
def tiny() -> Iterator[Tiny]:
    server = Tiny()
    yield server
    server.close()


@pytest.fixture(scope="session")
def far(models, tmp_path_factory) -> Iterator[Far]:
    """A server with TLS of a private authority, a key and a path prefix, in another network namespace where one may be.

    Else on the loopback.
    """
    if shutil.which("openssl") is None:
        pytest.skip("certificates are made with openssl, which is not installed")
    folder = tmp_path_factory.mktemp("far")
    with contextlib.ExitStack() as stack:
        try:
            name, address = stack.enter_context(namespace())
            place = far_server(folder, models, ["ip", "netns", "exec", name], address)
        except NoNamespaceError as error:
            place = far_server(folder, models, [], "127.0.0.1", str(error))
        yield stack.enter_context(place)
