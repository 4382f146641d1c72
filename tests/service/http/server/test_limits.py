"""What a client may not do: send slowly, without end, or over too many connections. Others are answered meanwhile."""

import contextlib
import json
import socket
import time

import psutil
import pytest

from service.http.server.heads import MAX_HEADERS
from tests.conftest import serving
from tests.service.http.conftest import until_closed


@pytest.fixture(scope="module")
def strict(models, tmp_path_factory):
    settings = {"ZOOSERVE_LOAD": "lenet5", "ZOOSERVE_RECEIVE_S": "1.0", "ZOOSERVE_MAX_CONNECTIONS": "20"}
    with serving(tmp_path_factory.mktemp("strict") / "log", ZOOSERVE_MODELS=str(models), **settings) as server:
        server.wait(200)
        yield server


def connect(server) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


HEAD = b"POST /v1/classify HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\n"


@pytest.mark.parametrize(
    "dribble",
    [
        [b"POST /v1/cl"],
        [HEAD],
        [HEAD, *[b"x-a: b\r\n"] * 30],
        [HEAD + b"content-length: 1000\r\n\r\n"],
        [HEAD + b"content-length: 1000\r\n\r\n", *[b"a"] * 30],
        [HEAD + b"transfer-encoding: chunked\r\n\r\n", *[b"1\r\na\r\n"] * 30],
    ],
    ids=[
        "half a line",
        "half of the headers",
        "headers",
        "no body",
        "a byte at a time",
        "a chunk at a time",
    ],
)
def test_a_slow_request_gets_408_and_is_closed(strict, dribble, models):
    start = time.monotonic()
    with connect(strict) as slow:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for piece in dribble:
                slow.sendall(piece)
                time.sleep(0.1 if len(dribble) > 2 else 0)
                if time.monotonic() - start > 3:
                    break
        answer = until_closed(slow)
    assert time.monotonic() - start < 4
    if b"HTTP/1.1" in answer:  # bytes that crossed the answer may have reset the connection
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        assert json.loads(body)["reason"] == "too_slow"
    else:
        assert len(dribble) > 2
    digit = (models / "lenet5/1/golden/digit_7.png").read_bytes()
    assert strict.client.post("/v1/classify", content=digit).status_code == 200


def test_a_connection_without_a_request_is_closed_without_an_answer(strict):
    """A load balancer that opens it ahead would take one for the answer to its next request."""
    start = time.monotonic()
    with connect(strict) as unused:
        assert until_closed(unused) == b""
    assert 0.9 < time.monotonic() - start < 3


@pytest.mark.parametrize(
    "before",
    [b"", b"\r\n", b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n\r\n"],
    ids=["nothing", "a line", "another request"],
)
def test_the_time_of_a_request_begins_with_it(strict, before):
    with connect(strict) as early:
        early.sendall(before)
        for piece in (b"GET /livez HTTP/1.1\r\n", b"host: x\r\nconnection: close\r\n\r\n"):
            time.sleep(0.7)
            early.sendall(piece)
        assert until_closed(early).count(b"HTTP/1.1 200 ") == 1 + before.startswith(b"GET")


@pytest.mark.parametrize("second", [HEAD, HEAD + b"content-length: 1000\r\n\r\nabc"], ids=["headers", "body"])
def test_an_incomplete_pipelined_request_gets_408(strict, models, second):
    digit = (models / "lenet5/1/golden/digit_7.png").read_bytes()
    start = time.monotonic()
    with connect(strict) as slow:
        slow.sendall(HEAD + f"content-length: {len(digit)}\r\n\r\n".encode() + digit + second)
        answer = until_closed(slow)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 408 " in answer
    assert time.monotonic() - start < 4


def test_a_client_that_does_not_read_its_answers_is_disconnected(strict):
    with connect(strict) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.sendall(b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n" * 17)  # more than any buffer holds
        end = time.monotonic() + 30
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            while time.monotonic() < end:
                time.sleep(0.2)
                deaf.send(b"x")
            pytest.fail("the connection is still held")


@pytest.mark.parametrize(
    "garbage",
    [b"\x16\x03\x01\x02\0\1\0\1", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", HEAD + b"x-request-id: a\rb\r\n\r\n"],
    ids=["TLS", "HTTP/2", "a header in a header"],
)
def test_bytes_that_are_not_http_get_400(strict, garbage):
    with connect(strict) as other:
        other.sendall(garbage)
        head, _, body = until_closed(other).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["reason"] == "bad_request"


@pytest.mark.parametrize(
    "before", [b"", b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"], ids=["head", "trailers"]
)
def test_endless_headers_are_refused(strict, before):
    with connect(strict) as endless:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            endless.sendall(HEAD + before)
            for _ in range(3 * MAX_HEADERS // 1000):
                endless.sendall(b"x-" + b"a" * 990 + b": b\r\n")
        answer = until_closed(endless)
    assert answer.startswith(b"HTTP/1.1 431 ") or answer == b""
    assert strict.client.get("/livez").status_code == 200


def test_the_longest_waiting_connection_is_closed_for_a_new_one(strict):
    with contextlib.ExitStack() as stack:
        kept = stack.enter_context(connect(strict))
        kept.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        answer = b""
        while not answer.endswith(b"}"):  # head and body may come one after the other
            received = kept.recv(65536)
            assert received, answer
            answer += received
        assert answer.startswith(b"HTTP/1.1 200 ")
        half = [stack.enter_context(connect(strict)) for _ in range(20)]
        for one in half:
            one.sendall(b"GET /livez HTTP/1.1\r\nho")
        time.sleep(0.1)
        assert kept.recv(65536) == b"", "the idle one went first, without an answer"
        for path, status in ((b"/v1/models", b"200"), (b"/livez", b"200"), (b"/readyz", b"200")):
            one_more = stack.enter_context(connect(strict))
            one_more.sendall(b"GET " + path + b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            assert until_closed(one_more).startswith(b"HTTP/1.1 " + status)
        half += [stack.enter_context(connect(strict)) for _ in range(3)]
        half[-1].sendall(b"GET /livez HTTP/1.1\r\nho")
        oldest = until_closed(half[0])
        assert oldest.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1\r\n" in oldest
        assert b"too_many_connections" in oldest
        half[-1].sendall(b"st: x\r\nconnection: close\r\n\r\n")
        assert until_closed(half[-1]).startswith(b"HTTP/1.1 200 "), "the youngest stayed"


def test_the_time_limit_applies_to_each_request_of_a_connection(strict, models):
    digit = (models / "lenet5/1/golden/digit_7.png").read_bytes()
    request = HEAD + f"content-length: {len(digit)}\r\n\r\n".encode() + digit
    with connect(strict) as kept:
        for _ in range(4):  # longer than a request may take, in all
            kept.sendall(request[:100])
            time.sleep(0.4)
            kept.sendall(request[100:])
            answer = b""
            while not answer.endswith(b"}"):
                received = kept.recv(65536)
                assert received, answer
                answer += received
            assert answer.startswith(b"HTTP/1.1 200")


def test_connections_do_not_take_all_files_that_may_be_open(models, tmp_path):
    digit = (models / "lenet5/1/golden/digit_7.png").read_bytes()
    with serving(tmp_path / "log", ZOOSERVE_MODELS=str(models), ZOOSERVE_LOAD="lenet5") as server:
        psutil.Process(server.process.pid).rlimit(psutil.RLIMIT_NOFILE, (300, 300))  # its processes have it from there
        server.wait(200)
        assert "ZOOSERVE_MAX_CONNECTIONS=2000: it is 108" in server.log.read_text()
        with contextlib.ExitStack() as stack:
            for _ in range(400):
                stack.enter_context(connect(server)).sendall(b"GET /livez HTTP/1.1\r\nho")
            assert server.client.get("/livez").status_code == 200
            assert server.client.post("/v1/classify", content=digit).status_code == 200
