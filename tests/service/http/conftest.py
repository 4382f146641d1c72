"""A small server that starts quickly, and requests to it byte by byte."""

import contextlib
import socket

import pytest

from tests.conftest import serving


class Wire:
    """Requests to a server as they go over the wire."""

    def __init__(self, server) -> None:
        host, port = server.url.removeprefix("http://").split(":")
        self.address = host, int(port)

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=30)

    def ask(self, *pieces: bytes) -> bytes:
        """Send pieces over one connection, and return everything that comes back until it is closed."""
        with self.connect() as connection:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for piece in pieces:
                    connection.sendall(piece)
            return until_closed(connection)

    def post(self, path: str, kind: str, body: bytes) -> bytes:
        """Post a body over a connection of its own."""
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(body)}\r\n"
        return self.ask((head + (f"content-type: {kind}\r\n" if kind else "") + "\r\n").encode() + body)


def until_closed(connection: socket.socket) -> bytes:
    """Everything that comes until the other side closes or resets the connection."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65536):
            received += data
    return received


def status_of(answer: bytes) -> int:
    """The status of the first answer in what was received; 0: none."""
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0


@pytest.fixture(scope="session")
def small(models, tmp_path_factory):
    """A server with lenet5 alone."""
    settings = {"ZOOSERVE_MODELS": str(models), "ZOOSERVE_LOAD": "lenet5", "ZOOSERVE_ACCESS_LOG": "true"}
    with serving(tmp_path_factory.mktemp("small") / "log", **settings) as server:
        server.wait(200)
        yield server


@pytest.fixture(scope="session")
def wire(small):
    return Wire(small)


@pytest.fixture(scope="session")
def digit(models) -> bytes:
    """A photo of a seven."""
    return (models / "lenet5/1/golden/digit_7.png").read_bytes()
