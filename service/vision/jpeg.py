"""The segments of a JPEG (ITU T.81, annex B), read before a decoder sees them. Called by `decode`."""

import re
from dataclasses import dataclass

from service.errors import Reason, RequestError
from service.vision import ifd

_SCAN, _END, _EXIF = 0xDA, 0xD9, 0xE1
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ONE_PASS = frozenset({0xC0, 0xC1})  # frames that are not progressive
# Of the applications' segments only APP0 and APP14 matter for pixels: they say how colours are stored.
_METADATA = frozenset(range(0xE1, 0xF0)) - {0xEE} | {0xFE}
# The codes that have no length are no segments: 00 and 01, restarts, and the beginning of a file.
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
_MAX_SEGMENTS = 4096  # 32 MB of metadata are 500 full ones
_MAX_TABLES = 1 << 18  # bytes of tables before the first scan: there can be 8 of 300 and 4 of 130
_MAX_GAP = 1 << 16  # bytes in front of a marker that belong to no segment
_STEP = 1 << 18  # bytes that are searched at a time, since a search lets no other thread run
# A file of a few kilobytes can ask for thousands of passes over all its pixels; encoders write about ten.
_MAX_SCANS, _MIN_SCANS = 100, 20
_MAX_SCANNED = 1_000_000_000  # pixels, all scans together


@dataclass(frozen=True, slots=True)
class Header:
    """What stands before the first scan.

    Attributes:
        orientation: from the first EXIF segment, 1 to 8; 1 without one.
        cuts: the offsets where metadata begins and ends, in turn.
    """

    orientation: int
    cuts: tuple[int, ...]

    def without_metadata(self, data: bytes) -> bytes:
        """The file without its metadata, all of which Pillow would read in Python."""
        places = (0, *self.cuts, len(data))
        return b"".join(data[start:end] for start, end in zip(places[::2], places[1::2], strict=True))


def read(data: bytes) -> Header:
    """Follow the segments up to the first scan, and count the scans.

    Raises:
        RequestError: `undecodable`: more segments, tables, scans or garbage than any encoder writes.
    """
    orientation, tables, at = 0, 0, 2
    cuts: list[int] = []
    frame = start = 0
    for _ in range(_MAX_SEGMENTS):
        start = _after_marker(data, at, at + _MAX_GAP)
        if start < 0:
            if at + _MAX_GAP < len(data):
                raise _refused(f"garbage of more than {_MAX_GAP} bytes between its segments")
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
                raise _refused(f"more than {_MAX_TABLES} bytes of tables")
            if marker in _FRAMES:
                frame = start
    else:
        raise _refused(f"more than {_MAX_SEGMENTS} segments before its pixels")
    if start > 0 and frame and data[start - 1] == _SCAN:
        _check_scans(data, frame, start)
    return Header(orientation or 1, tuple(cuts))


def _check_scans(data: bytes, frame: int, start: int) -> None:
    """Refuse a file of too many scans: passes over all its pixels.

    What looks like a scan may be metadata, or a video behind the image, so the segments are followed.
    """
    height, width, colours = data[frame + 3 : frame + 5], data[frame + 5 : frame + 7], data[frame + 7 : frame + 8]
    # One scan has all colours in it, and decoders take no other.
    if data[frame - 1] in _ONE_PASS and data[start + 2 : start + 3] == colours != b"":
        return
    pixels = int.from_bytes(height, "big") * int.from_bytes(width, "big")
    most = max(_MIN_SCANS, min(_MAX_SCANS, _MAX_SCANNED // max(pixels, 1)))
    if data.count(b"\xff\xda", start) < most:
        return
    scans = 1
    for _ in range(_MAX_SEGMENTS):
        start = _after_marker(data, start + int.from_bytes(data[start : start + 2], "big"), len(data))
        if start < 0 or data[start - 1] == _END:
            return
        scans += data[start - 1] == _SCAN
        if scans > most:
            raise _refused(f"more than {most} scans of {pixels / 1e6:.1f} million pixels")
    raise _refused(f"more than {_MAX_SEGMENTS} segments")


def _after_marker(data: bytes, at: int, end: int) -> int:
    """The offset behind the next marker that begins in [at, end); -1 without one. Linear in the bytes passed."""
    end = min(end, len(data))
    while at < end:
        if found := _MARKER.search(data, at, min(at + _STEP, end) + 1):
            return found.end()
        at += _STEP
    return -1


def _refused(what: str) -> RequestError:
    return RequestError(Reason.UNDECODABLE, f"The JPEG has {what}. Encode the image again.")
