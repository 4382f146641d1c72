"""Writes a greyscale PNG of which all but some rows are black, at about the cost of those rows. `masks` calls it.

Black rows are compressed once, in blocks that end with a full flush of the compressor (RFC 1951): such blocks may
follow each other in any order. Their checksum (Adler-32, RFC 1950) is computed from their number.
"""

import struct
import zlib
from functools import lru_cache

import numpy as np
import numpy.typing as npt

_BLOCK = 64  # rows of the largest block: a power of 2
_HEAD, _END = b"\x78\x01", b"\x03\x00"  # of a zlib stream; the last block of DEFLATE, which is empty
_ADLER = 65521


def encode_sparse(part: npt.NDArray[np.uint8], left: int, top: int, width: int, height: int) -> bytes:
    """Encode an image that is black outside of a part.

    Args:
        part: uint8 [h, w].
        left: pixels of the image to the left of it.
        top: pixels above it.
        width: of the image.
        height: of the image.
    """
    rows, columns = part.shape
    lines = np.zeros((rows, width + 1), np.uint8)  # a line begins with the number of its filter: none
    lines[:, left + 1 : left + 1 + columns] = part
    below = height - top - rows
    stream = [_HEAD, *_black(width + 1, top), _deflated(lines), *_black(width + 1, below), _END]
    checksum = _skip(1, top * (width + 1))
    checksum = _skip(zlib.adler32(lines.data, checksum), below * (width + 1))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = b"".join([*stream, struct.pack(">I", checksum)])
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _black(length: int, rows: int) -> list[bytes]:
    """Compress black rows of so many bytes."""
    whole, rest = divmod(rows, _BLOCK)
    powers = [1 << power for power in range(_BLOCK.bit_length()) if rest >> power & 1]
    return [_block(length, _BLOCK)] * whole + [_block(length, power) for power in powers]


@lru_cache(maxsize=128)
def _block(length: int, rows: int) -> bytes:
    return _deflated(np.zeros((rows, length), np.uint8))


def _deflated(lines: npt.NDArray[np.uint8]) -> bytes:
    """Compress lines to blocks that end at a byte, and do not refer to what is before them."""
    compressor = zlib.compressobj(1, wbits=-zlib.MAX_WBITS, strategy=zlib.Z_RLE)
    return compressor.compress(lines.data) + compressor.flush(zlib.Z_FULL_FLUSH)


def _skip(checksum: int, zeros: int) -> int:
    """Return the Adler-32 after so many further bytes of 0."""
    low, high = checksum & 0xFFFF, checksum >> 16
    return (high + zeros * low) % _ADLER << 16 | low


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
