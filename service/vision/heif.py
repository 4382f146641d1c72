"""Reads and checks the boxes of a HEIF file (ISO 23008-12) before it is decoded. AVIF is a kind of HEIF.

Called by `decode`. The container states the image's size, but a decoder allocates memory for the size and the number of
frames in the coded data. For AV1, these are checked too (AV1 bitstream specification, section 5).
"""

from collections.abc import Iterator
from struct import Struct, error
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL.AvifImagePlugin import AvifImageFile

from service.errors import Reason, RequestError
from service.vision.refusals import corrupt

AVIF_BRANDS: Final = frozenset({b"avif", b"avis"})
HEIC_BRANDS: Final = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_MAX_BRANDS = 64
_MAX_BOXES, _MAX_ITEMS = 1024, 4096
_MAX_UNITS = 1 << 14  # open bitstream units (OBUs) of all images in the file
_MAX_FRAMES = 16  # an image has one frame, or one for each of up to four layers
_HEAD, _LARGE = Struct(">I4s"), Struct(">Q")
_SEQUENCE, _FRAMES = 1, {3, 6}  # types of OBUs
_IN_FILE, _IN_BOX = 0, 1  # construction methods of an item: its bytes are in the file, or in the box `idat`


def brands(data: bytes) -> set[bytes]:
    """The brands of a file, four letters each; empty if it is no HEIF file."""
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4], "big"), len(data), 16 + 4 * _MAX_BRANDS)
    return {data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))}


def still(data: bytes) -> bytes:
    """Remove the image sequence of an animated AVIF, so that its still image is decoded."""
    if b"avis" not in brands(data):
        return data
    length = int.from_bytes(data[:4], "big")
    still = bytearray(data)
    still[:length] = data[:length].replace(b"avis", b"avif")
    for kind, start, _ in _boxes(data, 0, len(data)):
        if kind == b"moov":
            at = data.rfind(b"moov", 0, start)
            still[at : at + 4] = b"free"
    return bytes(still)


def check_avif(data: bytes, max_pixels: int) -> None:
    """Refuse an AVIF whose coded images are larger than `max_pixels`, or have more frames than an image can have.

    Raises:
        RequestError: `undecodable`: damaged, or too many parts; `too_large`: a coded image has too many pixels.
    """
    pixels, units = 0, _MAX_UNITS
    try:
        for start, end in _items(data):
            width, height, units = _coded_size(memoryview(data)[start:end], units)
            if width * height > max_pixels:
                raise RequestError(
                    Reason.TOO_LARGE,
                    f"The AVIF has an image of {width} x {height} pixels in it, and at most {max_pixels / 1e6:g} "
                    "million are decoded. Send a smaller one.",
                )
            pixels += width * height
    except (error, IndexError) as cause:
        raise corrupt("AVIF", "its boxes are damaged") from cause
    if pixels > 3 * max_pixels:  # colours, transparency and a preview
        raise corrupt("AVIF", f"it has {pixels / 1e6:.1f} million pixels in its parts")


def first_frame(image: AvifImageFile) -> npt.NDArray[np.uint8]:
    """Decode the first frame of an AVIF to uint8 [h, w, 3] RGB or [h, w, 4] RGBA, as its mode says; grey to [h, w].

    Pillow's `load` would hold the pixels twice in memory for a moment.
    """
    frame: bytes = image._decoder.get_frame(0)[0]
    pixels = np.frombuffer(frame, np.uint8).reshape(image.height, image.width, -1)
    return pixels[:, :, 0] if image.mode == "L" else pixels


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The boxes in a part of the file: kind, start and end of the content."""
    for _ in range(_MAX_BOXES):
        if at + 8 > end:
            return
        size, kind = _HEAD.unpack_from(data, at)
        start = at + 8
        if size == 1:
            size = _LARGE.unpack_from(data, start)[0]
            start += 8
        after = at + size if size else end
        if after < start:
            return
        yield kind, start, min(after, end)
        at = after
    raise corrupt("AVIF", f"it has more than {_MAX_BOXES} boxes")


def _items(data: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of the bytes of each item, as the box `iloc` lists them."""
    for kind, start, end in _boxes(data, 0, len(data)):
        if kind != b"meta":
            continue
        inner = {kind: place for kind, *place in _boxes(data, start + 4, end)}
        if b"iloc" in inner:
            yield from _located(data, inner[b"iloc"][0], inner.get(b"idat", [len(data)])[0])


def _located(data: bytes, at: int, box: int) -> Iterator[tuple[int, int]]:
    def number(size: int) -> int:
        nonlocal at
        if at + size > len(data):
            raise corrupt("AVIF", "its boxes are cut off")
        at += size
        return int.from_bytes(data[at - size : at], "big")

    version = number(4) >> 24
    sizes = number(2)
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    long = 4 if version == 2 else 2
    count = number(long)
    if count > _MAX_ITEMS:
        raise corrupt("AVIF", f"it has {count} items; at most {_MAX_ITEMS} are read")
    for _ in range(count):
        number(long)
        method = number(2) & 15 if version else _IN_FILE
        number(2)
        base = number(base_size)
        parts = number(2)
        if parts > 1 or method not in (_IN_FILE, _IN_BOX):
            raise corrupt("AVIF", "an item lies in several places")
        for _ in range(parts):
            number(index_size if version else 0)
            start = base + number(offset_size) + (box if method == _IN_BOX else 0)
            length = number(length_size)
            yield start, min(start + length, len(data)) if length else len(data)


def _coded_size(item: memoryview, units: int) -> tuple[int, int, int]:
    """Read the size of an AV1 image from its open bitstream units.

    Args:
        item: the bytes of an item.
        units: how many units may still be read.

    Returns:
        The largest width and height that its frames can have, in pixels, 0, 0 if it is no AV1; and how many units may
        be read after it.
    """
    width = height = frames = at = 0
    while at < len(item):
        if not units:
            raise corrupt("AVIF", f"it has more than {_MAX_UNITS} units")
        units -= 1
        head = item[at]
        kind, extended, sized = head >> 3 & 15, head >> 2 & 1, head >> 1 & 1
        at += 1 + extended
        size = 0 if sized else len(item) - at
        for place in range(8 * sized):  # LEB128: seven bits a byte, the lowest first
            size |= (item[at] & 0x7F) << 7 * place
            at += 1
            if not item[at - 1] & 0x80:
                break
        if kind == _SEQUENCE:
            widest, highest = _largest_frame(bytes(item[at : at + 64]))
            width, height = max(width, widest), max(height, highest)
        frames += kind in _FRAMES
        if width and frames > _MAX_FRAMES:
            raise corrupt("AVIF", f"an image has more than {_MAX_FRAMES} frames")
        at += size
    return width, height, units


def _largest_frame(sequence: bytes) -> tuple[int, int]:
    """The largest width and height, in pixels, in an AV1 sequence header (section 5.5.1)."""
    bits, at = f"{int.from_bytes(sequence, 'big'):0{8 * len(sequence)}b}", 0

    def number(count: int) -> int:
        nonlocal at
        at += count
        return int(bits[at - count : at] or "0", 2)

    number(4)  # profile, still image
    if number(1):  # the reduced header of a still image
        number(5)
    else:
        delays = 0
        if number(1):  # timing
            number(64)
            if number(1):
                zeros = len(bits[at:]) - len(bits[at:].lstrip("0"))
                number(2 * min(zeros, 32) + 1)
            if number(1):  # decoder model
                delays = number(5) + 1
                number(42)
        display = number(1)
        for _ in range(number(5) + 1):  # operating points
            number(12)
            number(number(5) > 7)
            if delays and number(1):
                number(2 * delays + 1)
            if display and number(1):
                number(4)
    width_bits, height_bits = number(4) + 1, number(4) + 1
    return number(width_bits) + 1, number(height_bits) + 1
