"""Reads and checks the segments of a JPEG (ITU T.81, annex B) before it is decoded. Called by `decode`."""

import re
from dataclasses import dataclass

from service.vision import ifd
from service.vision.refusals import excessive

_SCAN, _END, _EXIF = 0xDA, 0xD9, 0xE1
END = b"\xff\xd9"
"""The end of a file."""
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ONE_PASS = frozenset({0xC0, 0xC1})  # frames that are not progressive
# Of the application segments, only APP0 and APP14 affect the pixels: they say how colours are stored.
_METADATA = frozenset(range(0xE1, 0xF0)) - {0xEE} | {0xFE}
# Codes without a length are not segments: 00, 01, restart markers and the start of the image.
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
_MAX_SEGMENTS = 4096  # 32 MB of metadata fill 500
_MAX_TABLES = 1 << 18  # bytes of tables before the first scan; at most 8 of 300 and 4 of 130 are useful
_MAX_GAP = 1 << 16  # bytes between two segments
_STEP = 1 << 18  # bytes that are searched at a time, because a search holds the GIL
# Each scan is a pass over all pixels. A file of a few kilobytes can have thousands of them; encoders write about ten.
_MAX_SCANS, _MIN_SCANS = 100, 20
_MAX_SCANNED = 1_000_000_000  # pixels in all scans together


@dataclass(frozen=True, slots=True)
class Header:
    """The metadata before the first scan.

    Attributes:
        orientation: from the first EXIF segment, 1 to 8; 1 without one.
        cuts: the offsets of the metadata: start, end, start, end, ...
        one_pass: whether one scan has the whole image.
    """

    orientation: int
    cuts: tuple[int, ...]
    one_pass: bool = False

    def without_metadata(self, data: bytes) -> bytes:
        """Remove the metadata from the file. Pillow would read all of it in Python."""
        places = (0, *self.cuts, len(data))
        return b"".join(data[start:end] for start, end in zip(places[::2], places[1::2], strict=True))


def read(data: bytes) -> Header:
    """Read the segments up to the first scan, and count the scans.

    Raises:
        RequestError: `undecodable`: more segments, tables, scans or bytes between segments than encoders write.
    """
    orientation, tables, at = 0, 0, 2
    cuts: list[int] = []
    frame = start = 0
    for _ in range(_MAX_SEGMENTS):
        start = _after_marker(data, at, at + _MAX_GAP)
        if start < 0:
            if at + _MAX_GAP < len(data):
                raise excessive("JPEG", f"garbage of more than {_MAX_GAP} bytes between its segments")
            break
        marker = data[start - 1]
        at = start + int.from_bytes(data[start : start + 2], "big")
        if marker in (_SCAN, _END):
            break
        if marker in _METADATA:
            cuts += start - 2, min(at, len(data))
            if marker == _EXIF and not orientation and data[start + 2 : start + 8] == b"Exif\0\0":
                orientation = ifd.orientation(data[start + 2 : at])
        else:
            tables += at - start
            if tables > _MAX_TABLES:
                raise excessive("JPEG", f"more than {_MAX_TABLES} bytes of tables")
            if marker in _FRAMES:
                frame = start
    else:
        raise excessive("JPEG", f"more than {_MAX_SEGMENTS} segments before its pixels")
    one_pass = start > 0 and frame > 0 and data[start - 1] == _SCAN and _check_scans(data, frame, start)
    return Header(orientation or 1, tuple(cuts), one_pass)


def _check_scans(data: bytes, frame: int, start: int) -> bool:
    """Refuse a file with too many scans; return whether it has one, with all that the image has.

    Bytes that look like a scan may belong to metadata, or to a video after the image. So the scans are counted by
    following the segments.

    Args:
        data: the file.
        frame: offset of the content of the last frame header.
        start: offset of the content of the first scan's header.
    """
    height, width, colours = data[frame + 3 : frame + 5], data[frame + 5 : frame + 7], data[frame + 7 : frame + 8]
    # A scan with all colour components is the only one: decoders read no further one.
    if data[frame - 1] in _ONE_PASS and data[start + 2 : start + 3] == colours != b"":
        return True
    pixels = int.from_bytes(height, "big") * int.from_bytes(width, "big")
    most = max(_MIN_SCANS, min(_MAX_SCANS, _MAX_SCANNED // max(pixels, 1)))
    if data.count(b"\xff\xda", start) < most:
        return False
    scans = 1
    for _ in range(_MAX_SEGMENTS):
        start = _after_marker(data, start + int.from_bytes(data[start : start + 2], "big"), len(data))
        if start < 0 or data[start - 1] == _END:
            return False
        scans += data[start - 1] == _SCAN
        if scans > most:
            raise excessive("JPEG", f"more than {most} scans of {pixels / 1e6:.1f} million pixels")
    raise excessive("JPEG", f"more than {_MAX_SEGMENTS} segments")


def _after_marker(data: bytes, at: int, end: int) -> int:
    """The offset after the next marker that starts in [at, end); -1 without one. Takes linear time."""
    end = min(end, len(data))
    while at < end:
        if found := _MARKER.search(data, at, min(at + _STEP, end) + 1):
            return found.end()
        at += _STEP
    return -1
