"""The chunks of a WebP (RFC 9649, section 2). Called by `decode`."""

from dataclasses import dataclass
from struct import Struct

from service.errors import Reason, RequestError
from service.vision import ifd

_HEAD = Struct("<4sI")  # kind, length
_MAX_CHUNKS = 1 << 16
_ANIMATION, _ALPHA = 0x02, 0x10  # flags of the extended form
_PIXELS = frozenset({b"VP8 ", b"VP8L", b"ANMF"})
_KEPT = _PIXELS | {b"ALPH", b"ANIM"}
_SIMPLE = 30  # bytes up to the end of the chunk VP8X, which has 10


@dataclass(frozen=True, slots=True)
class Header:
    """What the chunks say.

    Attributes:
        width, height: in pixels; 0, 0 where they cannot be read.
        orientation: from the first EXIF chunk, 1 to 8; 1 without one.
        moving: whether it has frames, the first of which counts.
        alpha: whether its pixels may be transparent.
        pixels: a WebP of nothing but what the (first) image consists of.
    """

    width: int
    height: int
    orientation: int
    moving: bool
    alpha: bool
    pixels: bytes


def read(data: bytes) -> Header:
    """Walk over the chunks once.

    Raises:
        RequestError: `undecodable`: more chunks than any encoder writes.
    """
    width, height = _size(data)
    if data[12:16] != b"VP8X":  # nothing but pixels
        return Header(width, height, 1, False, data[12:16] == b"VP8L", data)
    view = memoryview(data)
    flags = data[20] & (_ANIMATION | _ALPHA) if len(data) > _SIMPLE else 0
    extended = view[12:20], bytes([flags]), view[21:30]
    kept: dict[bytes, memoryview] = {}  # the first of each kind
    orientation, at = 0, _SIMPLE
    for _ in range(_MAX_CHUNKS):
        if at + 8 > len(data):
            break
        kind, length = _HEAD.unpack_from(data, at)
        end = at + 8 + length + (length & 1)
        if kind == b"EXIF":
            orientation = orientation or ifd.orientation(view[at + 8 : at + 8 + length])
        elif kind in _KEPT and not kept.keys() & _PIXELS:
            kept.setdefault(kind, view[at:end])
        at = end
    else:
        raise RequestError(Reason.UNDECODABLE, f"The WebP has more than {_MAX_CHUNKS} chunks. Encode the image again.")
    body = b"".join((b"WEBP", *extended, *kept.values()))
    alpha = bool(flags & _ALPHA or kept.keys() & {b"VP8L", b"ALPH"})
    pixels = _HEAD.pack(b"RIFF", len(body)) + body
    return Header(width, height, orientation or 1, bool(flags & _ANIMATION), alpha, pixels)


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
