"""Answers to requests whose body is still on its way: they reach clients that then close the connection, too."""

import time

import pytest

from tests.conftest import serving
from tests.service.http.conftest import Wire, status_of, until_closed

LAST = b"host: x\r\nconnection: close\r\n"
PIECE = bytes(200_000)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"POST /v1/classify?model=none HTTP/1.0\r\ncontent-length: 3000000\r\n", 404),  # as nginx does by default
        (b"POST /v1/classify?model=none HTTP/1.1\r\ncontent-length: 3000000\r\n" + LAST, 404),
        (b"POST /v2/models/none/infer HTTP/1.1\r\ncontent-length: 3000000\r\n" + LAST, 404),
        (b"POST /v1/classify HTTP/1.1\r\ncontent-length: 40000000\r\n" + LAST, 413),
        (b"POST /v1/none HTTP/1.1\r\ncontent-length: 3000000\r\n" + LAST, 404),
        (b"PUT /v1/classify HTTP/1.1\r\ncontent-length: 3000000\r\n" + LAST, 405),
        (b"POST /v1/classify HTTP/1.1\r\ncontent-length: 3000000\r\nhost: y\r\n" + LAST, 400),
        (b"POST /v1/classify HTTP/1.1\r\ncontent-length: 3000000\r\nx: " + b"x" * 70_000 + b"\r\n" + LAST, 431),
    ],
)
def test_an_answer_before_the_end_of_the_body_arrives(wire, head, status):
    start = time.monotonic()
    with wire.connect() as connection:
        connection.sendall(head + b"\r\n")
        for _ in range(10):  # were the connection closed, one of these would be answered with a reset
            connection.sendall(PIECE)
            time.sleep(0.02)
        answer = until_closed(connection)
    assert status_of(answer) == status
    assert answer.endswith(b"}")
    assert b"connection: close" in answer
    assert time.monotonic() - start < 5, "the end was waited for"


def test_nothing_that_follows_such_an_answer_is_a_request(wire):
    with wire.connect() as connection:
        connection.sendall(b"PUT /v1/classify HTTP/1.1\r\ncontent-length: 3\r\n" + LAST + b"\r\n")
        time.sleep(0.1)
        connection.sendall(b"abcGET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        answer = until_closed(connection)
    assert answer.count(b"HTTP/1.1 ") == 1


def test_clients_that_do_not_leave_are_disconnected(models, tmp_path):
    settings = {"ZOOSERVE_LOAD": "lenet5", "ZOOSERVE_RECEIVE_S": "1", "ZOOSERVE_MAX_CONNECTIONS": "10"}
    head = b"POST /v1/classify?model=none HTTP/1.1\r\ncontent-length: 30000000\r\n" + LAST + b"\r\n"
    with serving(tmp_path / "log", ZOOSERVE_MODELS=str(models), **settings) as server:
        server.wait(200)
        wire = Wire(server)
        left = [wire.connect() for _ in range(30)]
        for connection in left:
            connection.sendall(head)
        assert status_of(wire.ask(b"GET /v1/models HTTP/1.1\r\n" + LAST + b"\r\n")) == 200, "they make room"
        time.sleep(1.5)
        left[-1].send(b"x")
        time.sleep(0.1)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            left[-1].send(b"x")
        for connection in left:
            connection.close()


@pytest.mark.parametrize(("version", "continued"), [(b"1.0", 0), (b"1.1", 1)])
def test_only_clients_that_know_it_are_told_to_continue(wire, digit, version, continued):
    head = b"POST /v1/classify HTTP/%b\r\nexpect: 100-continue\r\ncontent-length: %d\r\n" % (version, len(digit))
    with wire.connect() as connection:
        connection.sendall(head + LAST + b"\r\n")
        time.sleep(0.1)
        connection.sendall(digit)
        answer = until_closed(connection)
    assert answer.count(b"HTTP/1.1 100 ") == continued
    assert answer.count(b"HTTP/1.1 200 ") == 1
