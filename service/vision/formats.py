"""Which files are decoded: their formats, recognised by the first bytes, and their sizes. Called by `decode`."""

from enum import StrEnum
from importlib.util import find_spec
from struct import unpack_from
from typing import Final

from PIL import features

from service.errors import Reason, RequestError
from service.vision.bmp import HEADER_SIZES
from service.vision.heif import AVIF_BRANDS, HEIC_BRANDS, brands

MAX_PIXELS: Final = 50_000_000
# The time of resampling grows with the square of the longer side: 50,000,000 x 1 pixels would take minutes.
_MAX_SIDE = 1_000_000  # of libpng, by which masks are encoded; OpenCV reads 1 << 20


class Format(StrEnum):
    """The formats that can be decoded. The values are Pillow's names of them."""

    JPEG = "JPEG"
    PNG = "PNG"
    WEBP = "WEBP"
    BMP = "BMP"
    GIF = "GIF"
    TIFF = "TIFF"
    AVIF = "AVIF"
    HEIF = "HEIF"


_MISSING = {
    form
    for form, there in {
        Format.AVIF: features.check("avif"),
        Format.HEIF: find_spec("pillow_heif") is not None,  # the extra `heif`
    }.items()
    if not there
}
READABLE: Final = tuple(form for form in Format if form not in _MISSING)

# Other files that people send: their first bytes, and what they are.
_OTHERS = (
    (b"%PDF", "a PDF document"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"8BPS", "a Photoshop document"),
    (b"\0\0\1\0", "an icon (ICO)"),
    (b"FUJIFILMCCD-RAW", "a camera's raw file"),
    (b"qoif", "a QOI image"),
    (b"\x1a\x45\xdf\xa3", "a video (Matroska or WebM)"),
    (b"\0\0\1\xba", "a video (MPEG)"),
    (b"\0\0\1\xb3", "a video (MPEG)"),
    (b"FLV\1", "a video (FLV)"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a video (WMV)"),
    (b"OggS", "a video or a sound (Ogg)"),
    (b"ID3", "a sound (MP3)"),
    (b"fLaC", "a sound (FLAC)"),
    (b"PK\3\4", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"%!PS", "a PostScript document"),
    (b"\x93NUMPY", "a NumPy array"),
)
_HEIF_BRANDS = {b"mif1", b"msf1"}
_VIDEO = "a video (MP4 or QuickTime)"
_TEXT = 1024  # bytes of a text file that are searched for its type


def sniff(data: bytes) -> Format:
    """Recognise the format of a file by its content. The declared content type and the file name are ignored.

    Raises:
        RequestError: `undecodable`: the file is empty; `not_an_image`: it is in no format of `READABLE`. The message
            says what the file is, where that is known.
    """
    if not data:
        raise RequestError(Reason.UNDECODABLE, "The image has no bytes. Send the image file itself.")
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
    if data[:2] == b"BM" and len(data) >= 18 and unpack_from("<I", data, 14)[0] in HEADER_SIZES:
        return Format.BMP
    named = brands(data)
    form = Format.AVIF if named & AVIF_BRANDS else Format.HEIF if named & HEIC_BRANDS else None
    if form in READABLE:
        return form
    raise RequestError(Reason.NOT_AN_IMAGE, f"{_what(data, named)} Send one of {', '.join(READABLE)}.")


def _what(data: bytes, named: set[bytes]) -> str:
    """A sentence about bytes that are not in a readable format. `named` are the brands of a HEIF file."""
    if named & HEIC_BRANDS:
        return (
            "The image is HEIC, the format of an iPhone's photos, which is not decoded here. Send it as JPEG: in the "
            "phone's settings, Camera, Formats, Most Compatible."
        )
    if named & AVIF_BRANDS:
        return "The image is AVIF, which is not decoded here."
    begins = f"they begin with {data[:8].hex(' ')}."
    if what := _name(data, named):
        return f"The bytes are {what}, which cannot be decoded here: {begins}"
    return f"The bytes are not an image of a known format: {begins}"


def _name(data: bytes, named: set[bytes]) -> str:
    if named:
        return "a camera's raw file" if b"crx " in named else "a HEIF image" if named & _HEIF_BRANDS else _VIDEO
    text = data[:_TEXT].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"<"):
        kinds = {b"<svg": "an SVG drawing", b"<html": "an HTML page", b"<!doctype html": "an HTML page"}
        return next((what for mark, what in kinds.items() if mark in text), "")
    if data[4:8] in (b"moov", b"mdat", b"wide"):
        return _VIDEO
    if data[:1] == data[188:189] == b"G":
        return "a video (MPEG transport stream)"
    if data[128:132] == b"DICM":
        return "a DICOM file"
    if data[:4] == b"RIFF":
        return {b"AVI ": "a video (AVI)", b"WAVE": "a sound (WAV)"}.get(data[8:12], "")
    return next((what for start, what in _OTHERS if data.startswith(start)), "")


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse an image of more than `max_pixels` pixels, or with a side of more than 2^20 pixels.

    Raises:
        RequestError: `too_large`.
    """
    if width * height > max_pixels:
        raise RequestError(
            Reason.TOO_LARGE,
            f"The image has {width} x {height} = {width * height / 1e6:.1f} million pixels, and at most "
            f"{max_pixels / 1e6:g} million are decoded. Send a smaller one.",
        )
    if max(width, height) > _MAX_SIDE:
        raise RequestError(
            Reason.TOO_LARGE,
            f"The image has {width} x {height} pixels, and sides of at most {_MAX_SIDE} are decoded. "
            "Send a smaller one.",
        )
