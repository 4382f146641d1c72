"""The bodies of all requests together: beyond their limit new ones are refused before they are read."""

import contextlib
import time

import pytest

from service.limits import Bodies, HeldBodies
from tests.conftest import serving
from tests.service.http.conftest import Wire, status_of

HEAD = b"POST /v1/classify HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\n"


def sized(length: int) -> bytes:
    return HEAD + b"content-length: %d\r\n\r\n" % length


@pytest.fixture(scope="module")
def scarce(models, tmp_path_factory):
    settings = {"ZOOSERVE_LOAD": "lenet5", "ZOOSERVE_MAX_BODIES_MB": "4", "ZOOSERVE_MAX_BODY_MB": "3"}
    with serving(tmp_path_factory.mktemp("scarce") / "log", ZOOSERVE_MODELS=str(models), **settings) as server:
        server.wait(200)
        yield server


def refused(answer: bytes) -> bool:
    assert b"retry-after: 1\r\n" in answer
    assert b"connection: close\r\n" in answer
    return status_of(answer) == 503 and b"too_many_bodies" in answer


@pytest.mark.parametrize("path", [b"/v1/classify", b"/v2/models/lenet5/infer", b"/classify", b"/none"])
def test_a_body_beyond_the_limit_is_not_read(scarce, digit, path):
    wire = Wire(scarce)
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(wire.connect()).sendall(sized(2_000_000) + bytes(1_900_000))
        time.sleep(0.3)
        assert refused(wire.ask(sized(1_000_000).replace(b"/v1/classify", path))), "nothing of it was sent"
        chunked = HEAD + b"transfer-encoding: chunked\r\n\r\n"
        assert refused(wire.ask(chunked + b"7a120\r\n" + bytes(500_000) + b"\r\n")), "where no length is declared"
        assert wire.ask(b"GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").startswith(b"HTTP/1.1 200 ")
        assert status_of(wire.post("/v1/classify", "image/png", digit)) == 200, "it has room"
    time.sleep(0.3)
    assert status_of(wire.post("/v1/classify", "image/png", bytes(2_900_000))) == 415, "there is room again"


def test_a_declared_length_does_not_count_before_its_bytes_arrive(scarce, digit):
    wire = Wire(scarce)
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(wire.connect()).sendall(sized(2_900_000))
        time.sleep(0.2)
        assert status_of(wire.post("/v1/classify", "image/png", digit)) == 200


def test_answered_bodies_do_not_count(scarce):
    with scarce.client.stream("GET", "/livez"):
        for _ in range(8):
            assert scarce.client.post("/v1/classify", content=bytes(2_900_000)).status_code == 415


def test_answered_bodies_of_a_connection_that_always_asks_do_not_count(scarce, digit):
    """Requests are pipelined: one is always outstanding, while more bytes are sent than the limit."""
    wire, body = Wire(scarce), bytes(150_000)
    count, sent, answered = 40, 0, b""
    with wire.connect() as connection:
        connection.settimeout(30)
        while answered.count(b"HTTP/1.1 415") < count:
            while sent < count and sent - answered.count(b"HTTP/1.1 415") < 3:
                connection.sendall(sized(len(body)) + body)
                sent += 1
            part = connection.recv(65_536)
            assert part, answered[-500:]
            answered += part
        connection.sendall(sized(1000))  # and begins with another one
        assert status_of(wire.post("/v1/classify", "image/png", digit)) == 200


def test_refusals_of_a_connection_are_counted(scarce):
    wire = Wire(scarce)

    def counted(reason: str) -> float:
        text = scarce.client.get("/metrics").text
        line = next((line for line in text.splitlines() if f'model="",reason="{reason}"' in line), "0")
        return float(line.rpartition(" ")[2])

    before = counted("too_many_bodies"), counted("bad_request")
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(wire.connect()).sendall(sized(2_000_000) + bytes(1_900_000))
        time.sleep(0.3)
        for _ in range(5):
            assert refused(wire.ask(sized(1_000_000) + bytes(400_000)))
    with wire.connect() as other:
        other.sendall(sized(1000) + bytes(10))
        time.sleep(0.1)
        with wire.connect() as asking:  # its connection would stay open for the rest of the body
            asking.sendall(sized(600_000_000))
            assert status_of(asking.recv(65_536)) == 413, "it can never fit"
    assert status_of(wire.ask(b"GET / HTTP/1.1\r\n\r\n")) == 400
    assert (counted("too_many_bodies"), counted("bad_request")) == (before[0] + 5, before[1] + 1)


def test_a_connection_gives_back_each_body_with_its_answer():
    bodies = Bodies(10)
    own, other = HeldBodies(bodies), HeldBodies(bodies)
    for size in (3, 4):
        own.begin()
        own.add(size)
    other.begin()
    other.add(2)
    assert bodies.held == 9
    own.answered()
    assert bodies.held == 6
    own.end()
    assert bodies.held == 2
    own.answered()  # of a connection that has ended
    assert bodies.held == 2


def test_bodies_fit_up_to_the_limit():
    bodies = Bodies(10)
    assert bodies.fits(99), "where there is no other"
    bodies.held = 6
    assert bodies.fits(4)
    assert not bodies.fits(5)
