"""Reads the chunks of a WebP (RFC 9649, section 2). Called by `decode`."""

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct

from service.vision import ifd
from service.vision.refusals import corrupt, excessive

_HEAD = Struct("<4sI")  # kind, length
_MAX_CHUNKS = 1 << 16
_ANIMATION, _ALPHA = 0x02, 0x10  # flags in the chunk VP8X
_PIXELS = frozenset({b"VP8 ", b"VP8L", b"ANMF"})
_KEPT = _PIXELS | {b"ALPH"}
_FRAME = 16  # bytes in a frame before its own chunks
_EXTENDED = 30  # bytes up to the end of the chunk VP8X


@dataclass(frozen=True, slots=True)
class Header:
    """The content of the chunks.

    Attributes:
        width, height: of the canvas, in pixels.
        orientation: from the first EXIF chunk, 1 to 8; 1 without one.
        alpha: whether pixels may be transparent.
        place: of the image on the canvas: x, y, width and height in pixels.
        pixels: a WebP of the image alone, without metadata; of an animation, its first frame.
    """

    width: int
    height: int
    orientation: int
    alpha: bool
    place: tuple[int, int, int, int]
    pixels: bytes


def read(data: bytes) -> Header:
    """Read the chunks.

    Raises:
        RequestError: `undecodable`: no size, or more chunks than encoders write.
    """
    width, height = _size(data)
    if not (width and height):
        raise corrupt("WebP", "its size cannot be read")
    whole = 0, 0, width, height
    if data[12:16] != b"VP8X":  # the simple form has no metadata
        return Header(width, height, 1, data[12:16] == b"VP8L", whole, data)
    view = memoryview(data)
    flags = data[20] if len(data) > _EXTENDED else 0
    kept: dict[bytes, memoryview] = {}  # the first chunk of each kind
    orientation = 0
    for kind, start, end in _chunks(data, _EXTENDED, len(data)):
        if kind == b"EXIF":
            orientation = orientation or ifd.orientation(view[start:end])
        elif kind in _KEPT and not kept.keys() & _PIXELS:
            kept[kind] = view[start - 8 : end + (end - start & 1)]
    if flags & _ANIMATION:
        frame = kept.get(b"ANMF", view[:0])
        whole = _place(bytes(frame[8:20]))
        kept = {
            kind: frame[start - 8 : end + (end - start & 1)]
            for kind, start, end in _chunks(frame, 8 + _FRAME, len(frame))
            if kind in _KEPT
        }
    size = (max(whole[2], 1) - 1).to_bytes(3, "little") + (max(whole[3], 1) - 1).to_bytes(3, "little")
    body = b"".join((b"WEBP", _HEAD.pack(b"VP8X", 10), bytes([flags & _ALPHA, 0, 0, 0]), size, *kept.values()))
    return Header(width, height, orientation or 1, bool(flags & _ALPHA), whole, _HEAD.pack(b"RIFF", len(body)) + body)


def _chunks(data: bytes | memoryview, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The chunks in a part of the file: kind, start and end of the content. The end may lie beyond the file's end."""
    for _ in range(_MAX_CHUNKS):
        if at + 8 > end:
            return
        kind, length = _HEAD.unpack_from(data, at)
        yield kind, at + 8, at + 8 + length
        at += 8 + length + (length & 1)
    raise excessive("WebP", f"more than {_MAX_CHUNKS} chunks")


def _place(head: bytes) -> tuple[int, int, int, int]:
    """Read x, y, width and height of a frame (section 2.7.1.2): 3 bytes for each of x/2, y/2, width-1, height-1."""
    x, y, width, height = (int.from_bytes(head[at : at + 3], "little") for at in range(0, 12, 3))
    return 2 * x, 2 * y, width + 1, height + 1


def _size(data: bytes) -> tuple[int, int]:
    kind, body = data[12:16], data[20:30]
    if len(body) == 10 and kind == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if len(body) == 10 and kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if len(body) == 10 and kind == b"VP8 ":
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    return 0, 0
