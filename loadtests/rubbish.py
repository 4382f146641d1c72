"""Requests that a service must refuse, each with the status that is right. Sent among others by Locust and the soak."""

import struct
import zlib
from typing import NamedTuple

from loadtests.client import Request


class Rubbish(NamedTuple):
    """A request and the status of its refusal."""

    name: str
    request: Request
    status: int


def rubbish(jpeg: bytes) -> list[Rubbish]:
    """Make one of each kind, some of them out of a good JPEG."""

    def post(path: str, body: bytes, content_type: str = "image/jpeg") -> Request:
        return Request("POST", path, {"Content-Type": content_type}, body)

    return [
        Rubbish("no bytes", post("/v1/classify", b""), 400),
        Rubbish("cut off", post("/v1/detect", jpeg[: len(jpeg) // 2]), 400),
        Rubbish("not JSON", post("/v1/segment", b"{images:", "application/json"), 400),
        Rubbish("unknown model", post("/v1/classify?model=no-such-model", jpeg), 404),
        Rubbish("2.5 gigapixels", post("/v1/segment", _bomb(50_000, 50_000), "image/png"), 413),
        Rubbish("not a picture", post("/v1/detect", b"hello, world " * 50), 415),
        Rubbish("bad option", post("/v1/classify?top_k=0", jpeg), 422),
    ]


def _bomb(width: int, height: int) -> bytes:
    """Return a PNG of some hundred bytes whose header promises so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
