"""The header of a BMP (as Windows writes it). Called by `decode`."""

from struct import unpack_from
from typing import Final

HEADER_SIZES: Final = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
_RUN_LENGTHS = {1, 2}  # compression: RLE8 and RLE4
_INFO, _INFO_SIZE = 14, 40


def run_lengths(data: bytes) -> bool:
    """Whether its pixels are run-length encoded, which Pillow decodes in Python, run by run."""
    if len(data) < _INFO + _INFO_SIZE or unpack_from("<I", data, _INFO)[0] < _INFO_SIZE:
        return False
    return unpack_from("<I", data, _INFO + 16)[0] in _RUN_LENGTHS


def row(data: bytes) -> int:
    """Bytes that a row of pixels takes at most."""
    return 4 * (unpack_from("<I", data, _INFO + 4)[0] & 0x7FFFFFFF) if len(data) >= _INFO + _INFO_SIZE else 0


def size(data: bytes) -> tuple[int, int]:
    """Width and height in pixels of one whose header has at least 40 bytes."""
    width, height = unpack_from("<ii", data, _INFO + 4)
    return abs(width), abs(height)
