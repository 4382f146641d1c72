"""Clients that hang up while a request of theirs waits behind another on the same connection."""

import io
import re
import socket
import struct
import time

import pytest
from PIL import Image

ABORT = struct.pack("ii", 1, 0)  # SO_LINGER: the connection is reset at once
PROBE = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.fixture(scope="module")
def slow() -> bytes:
    """An image whose decoding takes much longer than 0.05 s."""
    file = io.BytesIO()
    Image.new("RGB", (6000, 6000)).save(file, "PNG", compress_level=1)
    return file.getvalue()


def hung_up(server) -> int:
    """How many requests were counted of clients that hung up."""
    text = server.client.get("/metrics").text
    return sum(int(float(found)) for found in re.findall(r'zooserve_requests_total\{code="499".* (\S+)', text))


@pytest.mark.parametrize("behind", [b"", PROBE, 3 * PROBE], ids=["nothing", "one", "three"])
@pytest.mark.parametrize("path", ["/v1/classify", "/v2/models/lenet5/infer"])
def test_a_request_ends_when_its_client_hangs_up(small, wire, slow, path, behind):
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\ncontent-length: {len(slow)}\r\n\r\n"
    before, read = hung_up(small), small.log.stat().st_size
    with wire.connect() as connection:
        connection.sendall(head.encode() + slow + behind)
        time.sleep(0.05)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    end = time.monotonic() + 10
    while hung_up(small) == before and time.monotonic() < end:
        time.sleep(0.05)
    assert hung_up(small) == before + 1
    assert "Traceback" not in small.log.read_text()[read:]
