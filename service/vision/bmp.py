"""The header of a BMP (as Windows writes it). Called by `decode`."""

from struct import pack, unpack_from
from typing import Final

HEADER_SIZES: Final = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
_RUN_LENGTHS = {1, 2}  # compression: RLE8 and RLE4
_INFO, _INFO_SIZE = 14, 40
_COLOURS = 256
_IDENTITY = b"".join(bytes([colour, colour, colour, 0]) for colour in range(_COLOURS))


def run_lengths(data: bytes) -> bool:
    """Whether its pixels are run-length encoded, which Pillow decodes in Python, run by run."""
    if len(data) < _INFO + _INFO_SIZE or unpack_from("<I", data, _INFO)[0] < _INFO_SIZE:
        return False
    return unpack_from("<I", data, _INFO + 16)[0] in _RUN_LENGTHS


def of_numbers(data: bytes) -> tuple[bytes, bytes]:
    """For one that is run-length encoded: a file in which each colour is its number, as a grey, and the colours.

    It takes a third of the memory to decode. The colours are 256 times blue, green, red and nothing, a byte each.
    """
    start = _INFO + min(unpack_from("<I", data, _INFO)[0], max(HEADER_SIZES))
    bits, used = unpack_from("<H", data, _INFO + 14)[0], unpack_from("<I", data, _INFO + 32)[0]
    count = min(used or 1 << min(bits, 8), _COLOURS)
    pixels = unpack_from("<I", data, 10)[0]
    if pixels in (0, start):  # some encoders forget the colours
        pixels = start + 4 * (used or count)
    colours = data[start : min(start + 4 * count, pixels)].ljust(4 * _COLOURS, b"\0")
    head = bytearray(data[:start])
    head[10:14] = pack("<I", start + len(_IDENTITY))
    head[_INFO + 32 : _INFO + 36] = pack("<I", _COLOURS if bits == 8 else 0)
    return bytes(head) + _IDENTITY + data[pixels:], colours


def row(data: bytes) -> int:
    """Bytes that a row of pixels takes at most."""
    return 4 * (unpack_from("<I", data, _INFO + 4)[0] & 0x7FFFFFFF) if len(data) >= _INFO + _INFO_SIZE else 0


def size(data: bytes) -> tuple[int, int]:
    """Width and height in pixels of one whose header has at least 40 bytes."""
    width, height = unpack_from("<ii", data, _INFO + 4)
    return abs(width), abs(height)
