"""Reads the chunks of a PNG (third edition, section 5) and keeps those that the pixels depend on. Called by `decode`.

The other chunks are skipped. So a damaged text or colour profile is no reason to refuse an image, and Pillow spends no
time and memory on metadata.
"""

from binascii import unhexlify
from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from zlib import crc32, decompressobj
from zlib import error as ZlibError  # noqa: N812

from service.vision import ifd
from service.vision.refusals import corrupt, excessive

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_CHUNKS = 1 << 16  # libpng writes chunks of 8 KB: 4,000 in 32 MB
_HEAD, _NUMBER, _SIZE = Struct(">I4s"), Struct(">I"), Struct(">II")
_NEEDED = frozenset({b"IHDR", b"PLTE", b"IDAT"})  # chunks that the pixels depend on
_TEXTS = frozenset({b"tEXt", b"zTXt"})
_PROFILE = b"Raw profile type exif\0"  # start of a text chunk with EXIF
_MAX_PROFILE = 1 << 18  # bytes of that text: EXIF has at most 64 KB, as two digits a byte, and line breaks
_READ = _NEEDED | {b"tRNS", b"eXIf", b"sBIT", _PROFILE}
_END = bytes(4) + b"IEND\xae\x42\x60\x82"
_PALETTE, _DEEP = 3, 16  # a colour type, a bit depth
_COLOURS = {0: 1, 2: 3, 4: 1, 6: 3}  # values per pixel by colour type, without transparency
_MAX_PALETTE, _MAX_TRANSPARENCY = 768, 256


@dataclass(frozen=True, slots=True)
class Header:
    """The content of the chunks.

    Attributes:
        width, height: as stored, in pixels.
        orientation: of EXIF, 1 to 8; 1 without it.
        bits: how many of 16 bits per value are used, as the file says; 0 if it has 8 bits or says nothing.
        parts: of the PNG without metadata, in order.
    """

    width: int
    height: int
    orientation: int
    bits: int
    parts: Sequence[bytes | memoryview]

    def without_metadata(self) -> bytes:
        """The PNG with its pixels in one chunk, and only the other chunks that they depend on."""
        return b"".join(self.parts)


def read(data: bytes) -> Header:
    """Read the chunks.

    A wrong checksum is an error in a chunk that the pixels depend on. Other chunks with one are ignored.

    Raises:
        RequestError: `undecodable`: damaged, cut off, or more chunks than encoders write.
    """
    if data[:8] != _SIGNATURE:
        raise corrupt("PNG", "its signature is damaged")
    view = memoryview(data)
    first: dict[bytes, memoryview] = {}  # the first chunk of each kind, with its head and checksum
    pixels: list[memoryview] = []
    last, at = b"", 8
    for _ in range(_MAX_CHUNKS):
        if at + 8 > len(data):
            break  # some encoders write no IEND
        length, kind = _HEAD.unpack_from(data, at)
        end = at + 12 + length
        if kind == b"IEND":
            break
        name = _PROFILE if kind in _TEXTS and data.startswith(_PROFILE, at + 8) else kind
        if name in _READ and name not in first:
            whole = end <= len(data) and crc32(view[at + 4 : end - 4]) == _NUMBER.unpack_from(data, end - 4)[0]
            if not whole and kind in _NEEDED:
                raise corrupt("PNG", f"its {kind.decode()} chunk is cut off or has a wrong checksum")
            if kind == b"IDAT":
                if pixels and last != kind:
                    raise corrupt("PNG", "other chunks lie between those of its pixels")
                pixels.append(view[at + 8 : end - 4])
            elif whole:
                first[name] = view[at:end]
        last, at = kind, end
    else:
        raise excessive("PNG", f"more than {_MAX_CHUNKS} chunks")
    return _header(first, pixels)


def _header(first: dict[bytes, memoryview], pixels: list[memoryview]) -> Header:
    header = first.get(b"IHDR")
    if header is None or len(header) != 12 + 13:
        raise corrupt("PNG", "it has no header")
    parts: list[bytes | memoryview] = [_SIGNATURE, header]
    if header[8 + 9] == _PALETTE:
        palette = first.get(b"PLTE", b"")
        if not 0 < len(palette) - 12 <= _MAX_PALETTE:
            raise corrupt("PNG", "it has no palette")
        parts.append(palette)
    if 0 < len(transparent := first.get(b"tRNS", b"")) - 12 <= _MAX_TRANSPARENCY:
        parts.append(transparent)
    bits = _used_bits(header, first.get(b"sBIT", b""))
    checksum = crc32(b"IDAT")  # Pillow ignores it; the checksums of the parts were verified
    for part in pixels if bits else ():
        checksum = crc32(part, checksum)
    parts += _HEAD.pack(sum(map(len, pixels)), b"IDAT"), *pixels, _NUMBER.pack(checksum), _END
    width, height = _SIZE.unpack_from(header, 8)
    return Header(width, height, _orientation(first), bits, parts)


def _used_bits(header: memoryview, chunk: bytes | memoryview) -> int:
    depth, colour = header[8 + 8], header[8 + 9]
    used = chunk[8:-4][: _COLOURS.get(colour, 0)]
    return max(used) if depth == _DEEP and used and 0 < max(used) < _DEEP else 0


def _orientation(first: dict[bytes, memoryview]) -> int:
    """The orientation in the eXIf chunk; without one, in a text of hexadecimal digits, as older ImageMagick writes."""
    if exif := first.get(b"eXIf"):
        return ifd.orientation(exif[8:-4])
    if not (profile := first.get(_PROFILE)):
        return 1
    text = bytes(profile[8 + len(_PROFILE) : -4][:_MAX_PROFILE])
    try:
        if bytes(profile[4:8]) == b"zTXt":  # the first byte is the compression method
            text = decompressobj().decompress(text[1:], _MAX_PROFILE)
        digits = b"".join(text.split(b"\n")[3:])  # after an empty line, the type and the length
        return ifd.orientation(unhexlify(digits[: len(digits) & ~1]))
    except (ZlibError, ValueError):
        return 1
