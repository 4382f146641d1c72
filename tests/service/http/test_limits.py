"""What a client may not do: send slowly, without end, or over too many connections. Others are answered meanwhile."""

import contextlib
import json
import socket
import time

import pytest

from service.http.connections import MAX_HEADERS
from tests.conftest import serving


@pytest.fixture(scope="module")
def strict(models, tmp_path_factory):
    settings = {"ZOOSERVE_LOAD": "lenet5", "ZOOSERVE_RECEIVE_S": "1.0", "ZOOSERVE_MAX_CONNECTIONS": "20"}
    with serving(tmp_path_factory.mktemp("strict") / "log", ZOOSERVE_MODELS=str(models), **settings) as server:
        server.wait(200)
        yield server


def connect(server) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def read_all(connection: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65536):
            received += data
    return received


HEAD = b"POST /v1/classify HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\n"


@pytest.mark.parametrize(
    "dribble",
    [
        [b""],
        [b"POST /v1/cl"],
        [HEAD],
        [HEAD, *[b"x-a: b\r\n"] * 30],
        [HEAD + b"content-length: 1000\r\n\r\n"],
        [HEAD + b"content-length: 1000\r\n\r\n", *[b"a"] * 30],
        [HEAD + b"transfer-encoding: chunked\r\n\r\n", *[b"1\r\na\r\n"] * 30],
    ],
    ids=[
        "nothing",
        "half a line",
        "half of the headers",
        "headers",
        "no body",
        "a byte at a time",
        "a chunk at a time",
    ],
)
def test_who_sends_slowly_is_told_so_and_closed(strict, dribble, models):
    start = time.monotonic()
    with connect(strict) as slow:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for piece in dribble:
                slow.sendall(piece)
                time.sleep(0.1 if len(dribble) > 2 else 0)
                if time.monotonic() - start > 3:
                    break
        answer = read_all(slow)
    assert time.monotonic() - start < 4
    if b"HTTP/1.1" in answer:  # bytes that crossed the answer may have reset the connection
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        assert json.loads(body)["reason"] == "too_slow"
    else:
        assert len(dribble) > 2
    digit = (models / "lenet5/1/golden/digit_7.png").read_bytes()
    assert strict.client.post("/v1/classify", content=digit).status_code == 200


def test_headers_have_an_end(strict):
    with connect(strict) as endless:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            endless.sendall(HEAD)
            for _ in range(3 * MAX_HEADERS // 1000):
                endless.sendall(b"x-" + b"a" * 990 + b": b\r\n")
        answer = read_all(endless)
    assert answer.startswith(b"HTTP/1.1 431 ") or answer == b""
    assert strict.client.get("/livez").status_code == 200


def test_connections_have_a_number(strict):
    with contextlib.ExitStack() as stack:
        for _ in range(25):
            last = stack.enter_context(connect(strict))
        answer = read_all(last)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"too_many_connections" in answer
    end = time.monotonic() + 10
    while strict.client.get("/livez").status_code != 200:
        assert time.monotonic() < end


def test_a_kept_connection_has_its_clock_per_request(strict, models):
    digit = (models / "lenet5/1/golden/digit_7.png").read_bytes()
    request = HEAD + f"content-length: {len(digit)}\r\n\r\n".encode() + digit
    with connect(strict) as kept:
        for _ in range(4):  # longer than a request may take, in all
            kept.sendall(request[:100])
            time.sleep(0.4)
            kept.sendall(request[100:])
            assert b"HTTP/1.1 200" in kept.recv(65536)
