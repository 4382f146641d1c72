"""Reads TIFF image file directories (TIFF 6.0, section 2), which EXIF blocks consist of too.

Called by the modules that read the headers of the formats. Only the first directory is read, and only the values that
are asked for, so the work is bounded by the number of entries.
"""

from collections.abc import Container
from dataclasses import dataclass
from struct import calcsize, error, iter_unpack, unpack_from
from typing import Final

ORIENTATION: Final = 274
MAX_ENTRIES: Final = 65535  # a BigTIFF could have more than a TIFF can
# Field types of whole numbers: BYTE, SHORT, LONG, IFD (a LONG), LONG8, IFD8 (a LONG8); and the sizes of all types.
_NUMBERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


@dataclass(frozen=True, slots=True)
class Entry:
    """One field of a directory.

    Attributes:
        kind: the field type (3 is SHORT, 4 is LONG, ...).
        count: number of values, as the file says.
        at: offset of the values in the file.
        size: of all values, in bytes; 0 if the type is unknown.
    """

    kind: int
    count: int
    at: int
    size: int


@dataclass(frozen=True, slots=True)
class Directory:
    """The first directory of a TIFF or of an EXIF block.

    Attributes:
        data: the file, or the EXIF block.
        order: byte order, `<` or `>` as in `struct`.
        entries: the wanted entries by tag. Of several with the same tag, the first one.
    """

    data: bytes | memoryview
    order: str
    entries: dict[int, Entry]

    def numbers(self, tag: int, most: int) -> tuple[int, ...] | None:
        """A field's whole numbers; None if it is missing, of another type, cut off, or has more than `most` values."""
        entry = self.entries.get(tag)
        if entry is None or entry.kind not in _NUMBERS or not 0 < entry.count <= most:
            return None
        try:
            return unpack_from(f"{self.order}{entry.count}{_NUMBERS[entry.kind]}", self.data, entry.at)
        except (error, OverflowError):  # a BigTIFF's offsets have 64 bits
            return None

    def number(self, tag: int, missing: int) -> int:
        """The number of a field that has one; `missing` if it is missing or has several."""
        found = self.numbers(tag, 1)
        return missing if found is None else found[0]


def read(data: bytes | memoryview, wanted: Container[int]) -> Directory | None:
    """Read the wanted tags of the first directory; None if there is none, or if it has more than `MAX_ENTRIES`."""
    order = {b"II": "<", b"MM": ">"}.get(bytes(data[:2]))
    if order is None:
        return None
    try:
        big = unpack_from(order + "H", data, 2)[0] == 43
        start = unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
        count = unpack_from(order + ("Q" if big else "H"), data, start)[0]
    except (error, OverflowError):  # a BigTIFF's offsets have 64 bits
        return None
    if count > MAX_ENTRIES:
        return None
    form = order + ("HHQQ" if big else "HHII")
    room = 8 if big else 4
    length = calcsize(form)
    at = start + (8 if big else 2)
    table = data[at : at + count * length]
    entries: dict[int, Entry] = {}
    for tag, kind, number, offset in iter_unpack(form, table[: len(table) // length * length]):
        if tag in wanted and tag not in entries:
            size = _SIZES.get(kind, 0) * number
            entries[tag] = Entry(kind, number, at + length - room if size <= room else offset, size)
        at += length
    return Directory(data, order, entries)


def orientation(block: bytes | memoryview) -> int:
    """The orientation in an EXIF block, 1 (upright) to 8. The block may start with the prefix `Exif`.

    It is 1 if the block cannot be read: damaged metadata is no reason to refuse an image.
    """
    directory = read(block[6:] if block[:6] == b"Exif\0\0" else block, (ORIENTATION,))
    return 1 if directory is None else valid_orientation(directory.number(ORIENTATION, 1))


def valid_orientation(value: int) -> int:
    """The value if it is an EXIF orientation, 1 to 8, else 1."""
    return value if 1 <= value <= 8 else 1
