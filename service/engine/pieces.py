"""Batches that lie in several places, and whose rows may be JPEGs. Assemblies make them, `binding` copies them.

Only sessions with buffers of their own take them.
"""

from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np

from service.arrays import Array, Image


class Jpegs(list[Image]):
    """Rows that are JPEGs: the file of each, uint8 [n]."""


class Pieces(list[Array | Jpegs]):
    """Arrays and JPEGs whose rows follow each other."""

    def __len__(self) -> int:
        """The number of rows."""
        return sum(len(piece) for piece in iter(self))


def joined(pieces: Sequence[Array | Jpegs]) -> Array:
    """Return pieces as an input of a session with buffers: the array, where it is one."""
    if len(pieces) == 1 and not isinstance(pieces[0], Jpegs):
        return pieces[0]
    return cast(Array, Pieces(pieces))


def pieces_of(rows: Image, lengths: Array, first: int, end: int, padding: int = 0) -> Iterator[Image | Jpegs]:
    """Yield the pieces of neighbouring rows of an image buffer, some of which may be JPEGs.

    Args:
        rows: uint8 [N, H, W, 3]; a JPEG lies in the first bytes of its row.
        lengths: [N]: the bytes of each JPEG; 0: the row is pixels.
        first: row.
        end: behind the last row.
        padding: how many rows behind them come along, whatever they hold.
    """
    begin = first
    for row in (first + int(at) for at in np.flatnonzero(lengths[first:end])):
        if row > begin:
            yield rows[begin:row]
        yield Jpegs([rows[row].reshape(-1)[: lengths[row]]])
        begin = row + 1
    if end + padding > begin:
        yield rows[begin : end + padding]


def contiguous(given: Array) -> list[Array | Jpegs]:
    """Return the contiguous arrays of an input, and its JPEGs."""
    pieces = given if isinstance(given, Pieces) else [given]
    return [piece if isinstance(piece, Jpegs) else np.ascontiguousarray(piece) for piece in pieces]
