"""Checks the first directory of a TIFF (TIFF 6.0; BigTIFF), and writes it again without metadata. Called by `decode`.

Pillow and libtiff read every tag, and the offset of every strip, before they check the image's size.
"""

from dataclasses import dataclass
from struct import pack, unpack

from service.vision import ifd
from service.vision.refusals import excessive

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _PLANES = 256, 257, 258, 259, 262, 277, 284
_STRIPS, _ROWS, _STRIP_SIZES = 273, 278, 279
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_SIZES = 322, 323, 324, 325
# Tag -> the most values it can have. No pixel depends on other tags (resolution, text, profiles, other directories).
_KEPT = {
    _WIDTH: 1,
    _HEIGHT: 1,
    _BITS: 8,
    _COMPRESSION: 1,
    _PHOTOMETRIC: 1,
    266: 1,  # FillOrder
    _SAMPLES: 1,
    _ROWS: 1,
    _PLANES: 1,
    292: 1,  # T4Options
    293: 1,  # T6Options
    317: 1,  # Predictor
    320: 768,  # ColorMap
    _TILE_WIDTH: 1,
    _TILE_HEIGHT: 1,
    332: 1,  # InkSet
    338: 8,  # ExtraSamples
    339: 8,  # SampleFormat
    347: 1 << 16,  # JPEGTables, bytes
    512: 1,  # 512 to 521: the old form of JPEG
    513: 1,
    514: 1,
    515: 1,
    517: 8,
    518: 8,
    519: 8,
    520: 8,
    521: 8,
    529: 3,  # YCbCrCoefficients
    530: 2,  # YCbCrSubSampling
    531: 1,  # YCbCrPositioning
    532: 6,  # ReferenceBlackWhite
}
_MAX_VALUE, _SIGNED_MAX_VALUE = 281, 341  # MaxSampleValue, SMaxSampleValue
# 16 bits per value; 12 bits, which Pillow does not scale to 16; the largest value
_DEEP, _PACKED, _ALL = 16, 12, 0xFFFF
_READ = {_MAX_VALUE, _SIGNED_MAX_VALUE, *_KEPT, _STRIPS, _STRIP_SIZES, _TILES, _TILE_SIZES, ifd.ORIENTATION}
_OFFSETS = {_STRIPS, _TILES, 513, 519, 520, 521}  # tags with offsets in the file
# Tags that are written as LONG, whatever their type was.
_LONGS = _OFFSETS | {_ROWS, _WIDTH, _HEIGHT, _TILE_WIDTH, _TILE_HEIGHT}
_RAW, _JPEG, _SEPARATE = 1, 7, 2  # Compression, PlanarConfiguration
_MAX_KIND = 12  # field types of a TIFF with 32-bit offsets: BYTE (1) to DOUBLE (12)
_MAX_SAMPLES = 8
_MAX_PIECES = 1 << 16  # strips or tiles
_MAX_PIECE_BYTES = 1 << 28  # of all pieces together, which may overlap
_MAX_SCANS = 20  # JPEG scans per piece, on average
# Pillow reads each uncompressed piece in Python. The smallest tile has 16 x 16 pixels.
_FEW_PIECES, _PIECE_PIXELS = 1024, 256
_BLOCK = 1 << 18
_LONG, _MAX_LONG = 4, 0xFFFFFFFF
_HEAD, _ROOM = 8, 4  # bytes of the file's header, and for the values within an entry

Value = tuple[int, int, bytes]  # field type, count, the packed values


@dataclass(frozen=True, slots=True)
class Header:
    """The content of the first directory.

    Attributes:
        width, height: as stored, in pixels.
        orientation: of EXIF, 1 to 8; 1 without it.
        bits: how many of 16 bits per value are used, as the file says; 0 if it has 8 bits or says nothing.
        tile: width and height of the tiles in pixels; 0, 0 without tiles. A tile is decoded as a whole.
        block: how many bytes Pillow should read at a time.
        tags: the tags of the directory that is written.
        directory: the directory as it was read.
        negative: whether it has grey levels of 16 bits, and 0 is white. `tags` say that 0 is black.
    """

    width: int
    height: int
    orientation: int
    bits: int
    tile: tuple[int, int]
    block: int
    tags: dict[int, Value]
    directory: ifd.Directory
    negative: bool = False

    def without_metadata(self) -> bytes:
        """A TIFF with a new directory, of only the tags that the pixels depend on, followed by the whole original file.

        The directory comes first, so that a file that was cut off still ends in its pixels. The offsets in it are moved
        accordingly.
        """
        order = self.directory.order
        at = _HEAD + 2 + 12 * len(self.tags) + 4
        entries, values = [pack(order + "H", len(self.tags))], []
        length = at + sum(len(value) + (len(value) & 1) for _, _, value in self.tags.values() if len(value) > _ROOM)
        for tag, (kind, count, stored) in sorted(self.tags.items()):
            value = stored
            if tag in _OFFSETS:
                moved = (offset and min(offset + length, _MAX_LONG) for offset in unpack(f"{order}{count}I", stored))
                value = pack(f"{order}{count}I", *moved)
            entries.append(pack(order + "HHI", tag, kind, count))
            if len(value) <= _ROOM:
                entries.append(value.ljust(_ROOM, b"\0"))
            else:
                entries.append(pack(order + "I", at))
                values.append(value + bytes(len(value) & 1))
                at += len(values[-1])
        mark = b"II" if order == "<" else b"MM"
        return b"".join((mark, pack(order + "HI", 42, _HEAD), *entries, bytes(4), *values, self.directory.data))


def read(data: bytes) -> Header:
    """Read and check the first directory.

    Raises:
        RequestError: `undecodable`: no directory, or more strips, tiles, samples or values than the image can have.
    """
    directory = ifd.read(data, _READ)
    if directory is None:
        raise excessive("TIFF", f"no directory of at most {ifd.MAX_ENTRIES} tags")
    width, height = directory.number(_WIDTH, 0), directory.number(_HEIGHT, 0)
    if not (width and height):
        raise excessive("TIFF", f"a size of {width} x {height}")
    samples = directory.number(_SAMPLES, 1)
    if not 0 < samples <= _MAX_SAMPLES:
        raise excessive("TIFF", f"{samples} samples per pixel; at most {_MAX_SAMPLES} are read")
    tags = {tag: value for tag, most in _KEPT.items() if (value := _copied(directory, tag, most))}
    block = _check_pieces(directory, tags, width, height, samples)
    tile = (0, 0) if _STRIPS in tags else (directory.number(_TILE_WIDTH, 0), directory.number(_TILE_HEIGHT, 0))
    orientation = ifd.valid_orientation(directory.number(ifd.ORIENTATION, 1))
    depth = max(directory.numbers(_BITS, _MAX_SAMPLES) or (1,))
    negative = depth in (_PACKED, _DEEP) and samples == 1 and directory.number(_PHOTOMETRIC, 1) == 0
    if negative:  # Pillow takes 0 for black, or refuses it
        tags[_PHOTOMETRIC] = 3, 1, pack(directory.order + "H", 1)
    return Header(width, height, orientation, _used_bits(directory, depth), tile, block, tags, directory, negative)


def _used_bits(directory: ifd.Directory, depth: int) -> int:
    """How many of 16 bits are used, from `MaxSampleValue`; 0 if it does not say.

    It says so only if it is 2^n - 1. Some files store the largest value that occurs in it.
    """
    if depth == _PACKED:
        return depth
    given = directory.numbers(_MAX_VALUE, _MAX_SAMPLES) or directory.numbers(_SIGNED_MAX_VALUE, _MAX_SAMPLES)
    most = max(given or (0,))
    return most.bit_length() if depth == _DEEP and 0 < most < _ALL and most & (most + 1) == 0 else 0


def _check_pieces(directory: ifd.Directory, tags: dict[int, Value], width: int, height: int, samples: int) -> int:
    """Add the strips or tiles to `tags`, and return `Header.block`. Refuse more of them than the size allows."""
    planes = samples if directory.number(_PLANES, 1) == _SEPARATE else 1
    if _STRIPS in directory.entries:
        kinds = _STRIPS, _STRIP_SIZES
        across, down = width, min(directory.number(_ROWS, height), height) or height
        most = height * planes  # a strip has at least one row
    else:
        kinds = _TILES, _TILE_SIZES
        across, down = directory.number(_TILE_WIDTH, 0), directory.number(_TILE_HEIGHT, 0)
        if not (across and down):
            raise excessive("TIFF", "neither strips nor tiles")
        most = -(-width // across) * -(-height // down) * planes
    offsets = _pieces(directory, kinds[0], min(most, _MAX_PIECES), f"{width} x {height} pixels")
    if not offsets:
        raise excessive("TIFF", "neither strips nor tiles")
    bits = directory.numbers(_BITS, _MAX_SAMPLES) or (1,)
    raw = directory.number(_COMPRESSION, _RAW) == _RAW
    if raw and planes > 1 and max(bits) > 8:  # Pillow reads such planes as if they had 8 bits
        raise excessive("TIFF", f"{max(bits)} bits per value in separate planes, uncompressed")
    row = max(1, (across * (sum(bits) if len(bits) > 1 else bits[0] * samples) // planes + 7) // 8)
    if raw:
        if kinds[0] == _STRIPS and _contiguous(offsets, row * down, -(-height // down)):
            offsets, down = offsets[:1], height  # joined to one strip, which is read faster
            tags[_ROWS] = _LONG, 1, pack(directory.order + "I", height)
        if len(offsets) > max(_FEW_PIECES, width * height // _PIECE_PIXELS):
            raise excessive("TIFF", f"{len(offsets)} strips or tiles for {width} x {height} pixels")
        sizes = (min(row * down, len(directory.data)),) * len(offsets)
    else:
        sizes = _compressed(directory, kinds[1], offsets)
    for kind, numbers in zip(kinds, (offsets, sizes), strict=True):
        tags[kind] = _LONG, len(numbers), pack(f"{directory.order}{len(numbers)}I", *numbers)
    return max(row, min(row * down, _BLOCK))


def _contiguous(offsets: tuple[int, ...], size: int, count: int) -> bool:
    """Whether these are all strips of the image, one directly after the other, as in nearly all files."""
    first = offsets[0]
    return len(offsets) == count and offsets == tuple(range(first, first + size * count, size))


def _compressed(directory: ifd.Directory, tag: int, offsets: tuple[int, ...]) -> tuple[int, ...]:
    """The sizes in bytes of compressed strips or tiles. Refuse those that would take long to decode."""
    data = directory.data
    rests = tuple(max(len(data) - offset, 0) for offset in offsets)
    given = _pieces(directory, tag, len(offsets), f"{len(offsets)} strips or tiles")
    if len(given) != len(offsets):
        if len(offsets) > 1:
            raise excessive("TIFF", f"{len(given)} sizes for {len(offsets)} strips or tiles")
        given = rests
    sizes = tuple(min(size, rest) for size, rest in zip(given, rests, strict=True))
    if sum(sizes) > _MAX_PIECE_BYTES:
        raise excessive("TIFF", f"strips or tiles of {sum(sizes)} bytes, which lie in {len(data)}")
    if directory.number(_COMPRESSION, _RAW) == _JPEG:
        scans = sum(bytes(data).count(b"\xff\xda", at, at + size) for at, size in zip(offsets, sizes, strict=True))
        if scans > _MAX_SCANS * len(offsets):
            raise excessive("TIFF", f"{scans} JPEG scans in {len(offsets)} strips or tiles")
    return given


def _pieces(directory: ifd.Directory, tag: int, most: int, of_what: str) -> tuple[int, ...]:
    """The offsets or sizes of the strips or tiles; empty if they are missing. Refuse more than `most`."""
    entry = directory.entries.get(tag)
    if entry is not None and entry.count > most:
        raise excessive("TIFF", f"{entry.count} values in tag {tag}, where {of_what} can have {most}")
    numbers = directory.numbers(tag, most) or ()
    return tuple(min(number, _MAX_LONG) for number in numbers)


def _copied(directory: ifd.Directory, tag: int, most: int) -> Value | None:
    """A copy of a tag, or None if it cannot be read. A BigTIFF's 64-bit types become LONG."""
    entry = directory.entries.get(tag)
    if entry is None or not entry.size:
        return None
    if entry.count > most:
        raise excessive("TIFF", f"{entry.count} values in tag {tag}; at most {most} are read")
    if tag in _LONGS or entry.kind > _MAX_KIND:
        numbers = directory.numbers(tag, most) or ()
        longs = pack(f"{directory.order}{len(numbers)}I", *(min(number, _MAX_LONG) for number in numbers))
        return (_LONG, len(numbers), longs) if numbers else None
    value = bytes(directory.data[entry.at : entry.at + entry.size])
    return (entry.kind, entry.count, value) if len(value) == entry.size else None
