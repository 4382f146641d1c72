"""The chunks of a WebP (RFC 9649, section 2). Called by `decode`."""

from dataclasses import dataclass
from struct import Struct

from service.errors import Reason, RequestError
from service.vision import ifd

_HEAD = Struct("<4sI")  # kind, length
_MAX_CHUNKS = 1 << 16
_ANIMATION, _ALPHA = 0x02, 0x10  # flags of the extended form
_PIXELS = frozenset({b"VP8 ", b"VP8L", b"ANMF"})


@dataclass(frozen=True, slots=True)
class Header:
    """What the chunks say.

    Attributes:
        width, height: in pixels; 0, 0 where they cannot be read.
        orientation: from the first EXIF chunk, 1 to 8; 1 without one.
        moving: whether it has frames, the first of which counts.
        pixels: a WebP of nothing but what the (first) image consists of.
    """

    width: int
    height: int
    orientation: int
    moving: bool
    pixels: bytes


def read(data: bytes) -> Header:
    """Walk over the chunks once.

    Raises:
        RequestError: `undecodable`: more chunks than any encoder writes.
    """
    width, height = _size(data)
    if data[12:16] != b"VP8X":  # nothing but pixels
        return Header(width, height, 1, False, data)
    view = memoryview(data)
    moving = bool(data[20] & _ANIMATION) if len(data) > 20 else False
    kept: list[bytes | memoryview] = []
    orientation, done, at = 0, False, 12
    for _ in range(_MAX_CHUNKS):
        if at + 8 > len(data):
            break
        kind, length = _HEAD.unpack_from(data, at)
        end = at + 8 + length + (length & 1)
        if kind == b"EXIF":
            orientation = orientation or ifd.orientation(view[at + 8 : at + 8 + length])
        elif kind == b"VP8X":
            if not kept:
                flags = data[at + 8 : at + 9]
                kept += view[at : at + 8], bytes(flag & (_ANIMATION | _ALPHA) for flag in flags), view[at + 9 : end]
        elif kind in _PIXELS or kind in (b"ALPH", b"ANIM"):
            if not done:
                kept.append(view[at:end])
            done = done or kind in _PIXELS
        at = end
    else:
        raise RequestError(Reason.UNDECODABLE, f"The WebP has more than {_MAX_CHUNKS} chunks. Encode the image again.")
    body = b"WEBP" + b"".join(kept)
    return Header(width, height, orientation or 1, moving, _HEAD.pack(b"RIFF", len(body)) + body)


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
