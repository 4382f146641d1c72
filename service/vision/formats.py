"""What a picture's header says before anything is decoded: its format, and how a JPEG is turned. Called by `decode`."""

import re
from enum import StrEnum
from struct import unpack_from

from PIL import ExifTags, Image

from service.errors import Reason, RequestError

_BMP_HEADER_SIZES = {12, 16, 40, 52, 56, 64, 108, 124}
_FILL, _SCAN, _END, _APP1 = 0xFF, 0xDA, 0xD9, 0xE1  # JPEG markers, ITU T.81 table B.1
_ONE_PASS = frozenset({0xC0, 0xC1})  # frames that are not progressive
_MARKER = re.compile(rb"\xff+([^\x00\x01\xd0-\xd8\xff])")  # those with a length, and the end


class Format(StrEnum):
    """The formats that are read. The values are Pillow's names."""

    JPEG = "JPEG"
    PNG = "PNG"
    WEBP = "WEBP"
    BMP = "BMP"
    GIF = "GIF"
    TIFF = "TIFF"


def sniff(data: bytes) -> Format:
    """Tell the format by content: a declared type or a file's name does not count.

    Raises:
        RequestError: `undecodable` where there are no bytes at all, `not_an_image` where they begin as no known format.
    """
    if not data:
        raise RequestError(Reason.UNDECODABLE, "The picture has no bytes. Send the image file itself.")
    match data[:4]:
        case b"\x89PNG":
            return Format.PNG
        case b"RIFF" if data[8:12] == b"WEBP":
            return Format.WEBP
        case b"GIF8":
            return Format.GIF
        case b"II*\0" | b"MM\0*" | b"II+\0" | b"MM\0+":
            return Format.TIFF
    if data[:3] == b"\xff\xd8\xff":
        return Format.JPEG
    if data[:2] == b"BM" and len(data) >= 18 and unpack_from("<I", data, 14)[0] in _BMP_HEADER_SIZES:
        return Format.BMP
    raise RequestError(
        Reason.NOT_AN_IMAGE,
        f"The bytes are no picture of a known format: they begin with {data[:8].hex(' ')}. "
        f"Send one of {', '.join(Format)}.",
    )


def jpeg_orientation(data: bytes) -> int:
    """A JPEG's EXIF orientation (1 to 8; 1 is upright), from its segments before the first scan (ITU T.81, B.1.1).

    What cannot be read counts as not there.
    """
    orientation, at = 1, 2
    while at + 4 <= len(data) and data[at] == 0xFF and (marker := data[at + 1]) != _SCAN:
        if marker == _FILL:
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == _APP1 and data[at + 4 : at + 10] == b"Exif\0\0":
            orientation = _exif_orientation(data[at + 4 : end])
        at = end
    return orientation


def many_scans(data: bytes, most: int) -> bool:
    """Whether a JPEG has more than `most` scans: passes over its pixels, of which a few bytes can ask for thousands.

    What looks like a scan may be metadata, or a video behind the picture, so the segments are followed.
    """
    scans, colours, at = 0, b"", 2
    while found := _MARKER.search(data, at):
        marker, start = found[1][0], found.end()
        if marker in _ONE_PASS:
            colours = data[start + 7 : start + 8]
        elif marker == _END:
            break
        elif marker == _SCAN:
            scans += 1
            # Nearly all files end here: one scan has all colours, and decoders take no other, or there are few at all.
            if scans == 1 and (data[start + 2 : start + 3] == colours != b"" or data.count(b"\xff\xda", start) < most):
                return False
        at = start + int.from_bytes(data[start : start + 2], "big")
    return scans > most


def webp_size(data: bytes) -> tuple[int, int]:
    """Width and height of a WebP (RFC 9649, section 2); 0, 0 where they cannot be read."""
    kind, body = data[12:16], data[20:30]
    if len(body) == 10 and kind == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if len(body) == 10 and kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if len(body) == 10 and kind == b"VP8 ":
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    return 0, 0


def _exif_orientation(segment: bytes) -> int:
    exif = Image.Exif()
    try:
        exif.load(segment)
        return valid_orientation(exif.get(ExifTags.Base.Orientation))
    except Exception:  # a broken EXIF spoils no picture, and Pillow raises whatever it stumbles over
        return 1


def valid_orientation(value: object) -> int:
    """An EXIF orientation as it is, or 1 where it is missing or nonsense."""
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
