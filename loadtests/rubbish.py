"""Requests that a service must refuse, each with the status that is right. Sent among others by Locust and the soak."""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle
from typing import NamedTuple

from loadtests.album import SAMPLES, Photo, jpeg
from loadtests.exchange import Request
from loadtests.target import Target


class Rubbish(NamedTuple):
    """A request and the status of its refusal."""

    name: str
    request: Request
    status: int


_BAD_OPTIONS = {"classify": {"top_k": "0"}, "detect": {"max_detections": "0"}, "segment": {"mask": "ink"}}


def rubbish(photos: Sequence[Photo], asked: Sequence[Target]) -> list[Rubbish]:
    """Make one of each kind, some of them out of a good JPEG.

    Args:
        photos: of which the first JPEG is the good one; without any a sample is.
        asked: targets with a task and a model that the server has; at least one. They are asked in turn.
    """
    turn = cycle(asked)
    good = next((photo for photo in photos if photo.content_type == "image/jpeg"), None) or jpeg(SAMPLES[0])

    def post(body: bytes, content_type: str = "image/jpeg", path: str = "") -> Request:
        return Request("POST", path or next(turn).question, {"Content-Type": content_type}, body)

    first = asked[0]
    return [
        Rubbish("no bytes", post(b""), 400),
        Rubbish("cut off", post(good.data[: len(good.data) // 2]), 400),
        Rubbish("not JSON", post(b"{images:", "application/json"), 400),
        Rubbish("unknown model", post(good.data, path=replace(first, model="no-such-model").question), 404),
        Rubbish("2.5 gigapixels", post(_bomb(50_000, 50_000), "image/png"), 413),
        Rubbish("not an image", post(b"hello, world " * 50), 415),
        Rubbish("bad option", post(good.data, path=first.question_with(_BAD_OPTIONS[first.task])), 422),
    ]


def _bomb(width: int, height: int) -> bytes:
    """Return a PNG of some hundred bytes whose header promises so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
