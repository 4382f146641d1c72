"""Thousands of connections that are of no use: the probes and everybody else are answered meanwhile."""

import contextlib
import socket
import threading
import time

import pytest

from tests.attack import FREEZE_S, attacked
from tests.conftest import serving
from tests.service.http.conftest import Wire

HALF = b"GET /livez HTTP/1.1\r\nho"
POST = b"POST /v1/classify HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nabc"
WHOLE = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"
DEAF = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n" * 16


@pytest.fixture(scope="module")
def limited(models, tmp_path_factory):
    """A server with few places, so that a test does not need thousands."""
    settings = {"ZOOSERVE_LOAD": "lenet5", "ZOOSERVE_MAX_CONNECTIONS": "40", "ZOOSERVE_MODELS": str(models)}
    with serving(tmp_path_factory.mktemp("limited") / "log", **settings) as server:
        server.wait(200)
        yield server


def opened(wire: Wire, stack: contextlib.ExitStack, said: bytes) -> socket.socket:
    connection = stack.enter_context(wire.connect())
    if said is DEAF:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.sendall(said)
    if said is WHOLE:
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    return connection


def come_back(wire: Wire, said: bytes, seconds: float) -> None:
    """Open a connection, wait until it is closed, and come back."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError), wire.connect() as connection:
            connection.settimeout(1)
            connection.sendall(said)
            connection.recv(4096)


@pytest.mark.parametrize("said", [b"", HALF, POST, WHOLE, DEAF], ids=["nothing", "half", "body", "idle", "deaf"])
def test_many_held_connections_do_not_block_others(limited, said, digit):
    wire = Wire(limited)
    with contextlib.ExitStack() as stack, attacked(limited) as seen:
        for _ in range(50):
            opened(wire, stack, said)
        threads = [threading.Thread(target=come_back, args=(wire, said, 1.0)) for _ in range(10)]
        for thread in threads:
            thread.start()
        for path in ("/livez", "/readyz", "/metrics", "/v1/models") * 5:
            answer = wire.ask(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
            assert answer.startswith(b"HTTP/1.1 200 "), answer
            assert wire.post("/v1/classify", "image/png", digit).startswith(b"HTTP/1.1 200 ")
        for thread in threads:
            thread.join()
    # The deaf have sent 800 requests for 150 kB at once: that is load, and each turn of the event loop answers one of
    # every connection. A probe of Kubernetes waits for a second.
    seen.check(freeze=1.0 if said is DEAF else FREEZE_S)
    assert seen.asked > 20


def test_two_thousand_incomplete_requests_do_not_block_returning_clients(small, digit):
    """With the default limit: the eleventh row of the issue that this came from."""
    wire = Wire(small)
    with contextlib.ExitStack() as stack:
        for _ in range(2000):
            opened(wire, stack, HALF)
        with attacked(small) as seen:
            threads = [threading.Thread(target=come_back, args=(wire, HALF, 2.0)) for _ in range(10)]
            for thread in threads:
                thread.start()
            for _ in range(20):
                assert wire.post("/v1/classify", "image/png", digit).startswith(b"HTTP/1.1 200 ")
            for thread in threads:
                thread.join()
        seen.check()
