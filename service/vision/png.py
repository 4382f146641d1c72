"""The chunks of a PNG (third edition, section 5): those that decide about pixels are kept. Called by `decode`.

The others are passed over, whatever is in them, so that no text, profile or checksum of theirs decides whether an image
is read, and Pillow spends no time and memory on them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from zlib import crc32

from service.errors import Reason, RequestError
from service.vision import ifd

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_CHUNKS = 1 << 16  # libpng writes pixels in chunks of 8 KB: 4,000 in 32 MB
_HEAD, _NUMBER, _SIZE = Struct(">I4s"), Struct(">I"), Struct(">II")
_NEEDED = frozenset({b"IHDR", b"PLTE", b"IDAT"})  # pixels depend on them
_READ = _NEEDED | {b"tRNS", b"eXIf", b"sBIT"}
_END = bytes(4) + b"IEND\xae\x42\x60\x82"
_PALETTE, _DEEP = 3, 16  # a colour type, a bit depth
_COLOURS = {0: 1, 2: 3, 4: 1, 6: 3}  # colour type: values of a pixel, without transparency
_MAX_PALETTE, _MAX_TRANSPARENCY = 768, 256


@dataclass(frozen=True, slots=True)
class Header:
    """What the chunks say.

    Attributes:
        width, height: in pixels.
        orientation: from the first eXIf chunk, 1 to 8; 1 without one.
        bits: how many of 16 bits per value it says are used; 0 where it has no 16, or says nothing.
        parts: what a PNG without metadata consists of, in order.
    """

    width: int
    height: int
    orientation: int
    bits: int
    parts: Sequence[bytes | memoryview]

    def without_metadata(self) -> bytes:
        """The PNG with its pixels in one chunk, and nothing else but what they depend on."""
        return b"".join(self.parts)


def read(data: bytes) -> Header:
    """Walk over the chunks once.

    A chunk with a wrong checksum is an error where pixels depend on it; any other counts as not there.

    Raises:
        RequestError: `undecodable`: damaged, cut off, or more chunks than any encoder writes.
    """
    if data[:8] != _SIGNATURE:
        raise _broken("its signature is damaged")
    view = memoryview(data)
    first: dict[bytes, memoryview] = {}  # whole chunks
    pixels: list[memoryview] = []
    last, at = b"", 8
    for _ in range(_MAX_CHUNKS):
        if at + 8 > len(data):
            break  # some encoders write no IEND
        length, kind = _HEAD.unpack_from(data, at)
        end = at + 12 + length
        if kind == b"IEND":
            break
        if kind in _READ and kind not in first:
            whole = end <= len(data) and crc32(view[at + 4 : end - 4]) == _NUMBER.unpack_from(data, end - 4)[0]
            if not whole and kind in _NEEDED:
                raise _broken(f"its {kind.decode()} chunk is cut off or has a wrong checksum")
            if kind == b"IDAT":
                if pixels and last != kind:
                    raise _broken("other chunks lie between those of its pixels")
                pixels.append(view[at + 8 : end - 4])
            elif whole:
                first[kind] = view[at:end]
        last, at = kind, end
    else:
        raise RequestError(Reason.UNDECODABLE, f"The PNG has more than {_MAX_CHUNKS} chunks. Encode the image again.")
    return _header(first, pixels)


def _header(first: dict[bytes, memoryview], pixels: list[memoryview]) -> Header:
    header = first.get(b"IHDR")
    if header is None or len(header) != 12 + 13:
        raise _broken("it has no header")
    parts: list[bytes | memoryview] = [_SIGNATURE, header]
    if header[8 + 9] == _PALETTE:
        palette = first.get(b"PLTE", b"")
        if not 0 < len(palette) - 12 <= _MAX_PALETTE:
            raise _broken("it has no palette")
        parts.append(palette)
    if 0 < len(transparent := first.get(b"tRNS", b"")) - 12 <= _MAX_TRANSPARENCY:
        parts.append(transparent)
    bits = _used_bits(header, first.get(b"sBIT", b""))
    checksum = 0  # Pillow does not look at it, and those of the parts were right
    if bits:
        for part in (b"IDAT", *pixels):
            checksum = crc32(part, checksum)
    parts += _HEAD.pack(sum(map(len, pixels)), b"IDAT"), *pixels, _NUMBER.pack(checksum), _END
    width, height = _SIZE.unpack_from(header, 8)
    exif = first.get(b"eXIf")
    return Header(width, height, 1 if exif is None else ifd.orientation(exif[8:-4]), bits, parts)


def _used_bits(header: memoryview, chunk: bytes | memoryview) -> int:
    depth, colour = header[8 + 8], header[8 + 9]
    used = chunk[8:-4][: _COLOURS.get(colour, 0)]
    return max(used) if depth == _DEEP and used and 0 < max(used) < _DEEP else 0


def _broken(why: str) -> RequestError:
    return RequestError(Reason.UNDECODABLE, f"The PNG is cut off or corrupt ({why}). Send the whole file again.")
