"""Reads the header of a BMP (Windows bitmap). Called by `decode`."""

from struct import pack, unpack_from
from typing import Final

HEADER_SIZES: Final = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
_RUN_LENGTHS = {1, 2}  # values of the field `compression`: RLE8 and RLE4
_INFO, _INFO_SIZE = 14, 40
_COLOURS = 256
_IDENTITY = b"".join(bytes([colour, colour, colour, 0]) for colour in range(_COLOURS))


def run_lengths(data: bytes) -> bool:
    """Whether the pixels are run-length encoded. Pillow would decode them in Python, which is slow."""
    if len(data) < _INFO + _INFO_SIZE or unpack_from("<I", data, _INFO)[0] < _INFO_SIZE:
        return False
    return unpack_from("<I", data, _INFO + 16)[0] in _RUN_LENGTHS


def split_palette(data: bytes) -> tuple[bytes, bytes]:
    """Split a run-length encoded BMP into palette indices and palette.

    Decoding the indices as grey levels takes a third of the memory that colours would take.

    Returns:
        A BMP whose grey levels are the palette indices, and the palette: 256 colours of four bytes, blue, green, red
        and an unused one.
    """
    start = _INFO + min(unpack_from("<I", data, _INFO)[0], max(HEADER_SIZES))
    bits, used = unpack_from("<H", data, _INFO + 14)[0], unpack_from("<I", data, _INFO + 32)[0]
    count = min(used or 1 << min(bits, 8), _COLOURS)
    pixels = unpack_from("<I", data, 10)[0]
    if pixels in (0, start):  # some encoders leave the palette out of this offset
        pixels = start + 4 * (used or count)
    colours = data[start : min(start + 4 * count, pixels)].ljust(4 * _COLOURS, b"\0")
    head = bytearray(data[:start])
    head[10:14] = pack("<I", start + len(_IDENTITY))
    head[_INFO + 32 : _INFO + 36] = pack("<I", _COLOURS if bits == 8 else 0)
    return bytes(head) + _IDENTITY + data[pixels:], colours


def row(data: bytes) -> int:
    """The most bytes that a row of pixels can have; 0 if the header is incomplete."""
    return 4 * (unpack_from("<I", data, _INFO + 4)[0] & 0x7FFFFFFF) if len(data) >= _INFO + _INFO_SIZE else 0


def size(data: bytes) -> tuple[int, int]:
    """Width and height in pixels. The header must have at least 40 bytes."""
    width, height = unpack_from("<ii", data, _INFO + 4)
    return abs(width), abs(height)
