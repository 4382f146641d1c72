"""Connections that are kept: how long, and that a server that stops waits for none of them."""

import signal
import socket
import time

import pytest

from service.settings import Settings
from tests.conftest import serving
from tests.service.http.conftest import Wire

ALIVE = b'{"alive":true}'
GET = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"


def ask(kept: socket.socket) -> None:
    kept.sendall(GET)
    received = b""
    while not received.endswith(ALIVE):
        received += (data := kept.recv(65536))
        assert data, received


def test_idle_connections_outlive_those_of_load_balancers():
    assert Settings().keep_alive_s > 60


@pytest.mark.parametrize("seconds", ["1.5", "60"])
def test_an_idle_connection_is_kept_as_long_as_the_setting_says(models, tmp_path, seconds):
    settings = {"ZOOSERVE_LOAD": "lenet5", "ZOOSERVE_KEEP_ALIVE_S": seconds, "ZOOSERVE_MODELS": str(models)}
    with serving(tmp_path / "log", **settings) as server:
        server.wait(200)
        server.client.close()
        with Wire(server).connect() as kept:
            for _ in range(2):
                ask(kept)
                time.sleep(0.5)  # less than either
            if seconds == "60":
                time.sleep(6)  # more than uvicorn's own
                ask(kept)
                start = time.monotonic()
                server.process.send_signal(signal.SIGTERM)
            assert kept.recv(65536) == b""
        if seconds == "60":
            server.process.wait(30)
            assert time.monotonic() - start < 20, "it waited for the idle connection"


def test_a_connection_is_idle_after_an_answer_before_the_end_of_a_body(models, tmp_path):
    settings = {"ZOOSERVE_LOAD": "lenet5", "ZOOSERVE_KEEP_ALIVE_S": "1", "ZOOSERVE_MODELS": str(models)}
    with serving(tmp_path / "log", **settings) as server:
        server.wait(200)
        with Wire(server).connect() as kept:
            kept.sendall(b"POST /v1/classify?model=none HTTP/1.1\r\nhost: x\r\ncontent-length: 400000\r\n\r\n")
            for _ in range(2):
                time.sleep(0.2)
                kept.sendall(bytes(200_000))
            ask(kept)
            kept.sendall(b"POST /v1/classify?model=none HTTP/1.1\r\nhost: x\r\ncontent-length: 400000\r\n\r\n")
            for _ in range(2):
                time.sleep(0.2)
                kept.sendall(bytes(200_000))
            start = time.monotonic()
            while kept.recv(65536):
                pass
            assert time.monotonic() - start < 5
