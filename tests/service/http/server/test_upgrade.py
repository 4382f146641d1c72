"""Offers to speak another protocol are declined: the request is answered in HTTP/1.1, and the connection goes on."""

import time

import pytest

from tests.service.http.conftest import status_of

H2C = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
WEBSOCKET = (
    b"connection: keep-alive, Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: x\r\nsec-websocket-version: 13\r\n"
)
LAST = b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


def form(digit: bytes) -> bytes:
    return b'--x\r\ncontent-disposition: form-data; name="image"\r\n\r\n' + digit + b"\r\n--x--\r\n"


@pytest.mark.parametrize(
    "offer", [H2C, WEBSOCKET, H2C.replace(b"h2c", b"TLS/1.3, h2c")], ids=["h2c", "websocket", "two"]
)
@pytest.mark.parametrize("framing", ["sized", "chunked", "chunks"])
@pytest.mark.parametrize("cut", ["whole", "head and body", "in pieces"])
@pytest.mark.parametrize("path", [b"/v1/classify", b"/classify", b"/v2/models/lenet5/infer"])
def test_a_request_with_upgrade_is_answered_and_the_connection_reused(wire, digit, offer, framing, cut, path):
    kind, body = {
        b"/v1/classify": (b"image/png", digit),
        b"/classify": (b"multipart/form-data; boundary=x", form(digit)),
        b"/v2/models/lenet5/infer": (b"application/json", b'{"inputs": []}'),
    }[path]
    head = b"POST " + path + b" HTTP/1.1\r\nhost: x\r\ncontent-type: " + kind + b"\r\n" + offer
    if framing == "sized":
        head += b"content-length: %d\r\n\r\n" % len(body)
    else:
        size = len(body) if framing == "chunked" else 50
        chunks = [body[at : at + size] for at in range(0, len(body), size)]
        head += b"transfer-encoding: chunked\r\n\r\n"
        body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    pieces = {
        "whole": [head + body + head + body + LAST],
        "head and body": [head, body, head + body, LAST],
        "in pieces": [head[:30], head[30:-2], head[-2:] + body[:10], body[10:] + head[:-1], head[-1:], body, LAST],
    }[cut]
    with wire.connect() as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(0.005 if len(pieces) > 1 else 0)
        received = b""
        while data := connection.recv(65536):
            received += data
    if path.startswith(b"/v2"):
        assert received.count(b"HTTP/1.1 400 ") == 2
        assert received.count(b"HTTP/1.1 200 ") == 1
    else:
        assert received.count(b"HTTP/1.1 200 ") == 3, received
        assert received.count(b'"7"') >= 2
    assert received.endswith(b'{"alive":true}')
    assert b"101" not in received.partition(b"\r\n")[0]


@pytest.mark.parametrize(
    "request_", [b"GET /livez HTTP/1.1\r\n", b"OPTIONS * HTTP/1.1\r\n", b"GET /livez HTTP/1.0\r\n"]
)
@pytest.mark.parametrize("offer", [H2C, WEBSOCKET, b"upgrade: h2c\r\n", b"connection: upgrade\r\n"])
def test_upgrade_requests_without_a_body_are_answered(wire, request_, offer):
    answer = wire.ask(request_ + b"host: x\r\n" + offer + b"\r\n" + LAST)
    assert status_of(answer) in (200, 404, 405), answer
    if b"1.0" not in request_:
        assert answer.endswith(b'{"alive":true}')


def test_an_upgrade_header_does_not_hide_an_invalid_head(wire):
    assert status_of(wire.ask(b"GET /livez HTTP/1.1\r\nhost: x\r\nhost: y\r\n" + H2C + b"\r\n")) == 400
    assert status_of(wire.ask((b"GET /livez HTTP/1.1\r\nhost: x\r\n" + H2C + b"\r\n") * 5000)) == 200
