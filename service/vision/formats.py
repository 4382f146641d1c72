"""Which format a file is in, by its first bytes. Called by `decode`."""

from enum import StrEnum
from struct import unpack_from

from service.errors import Reason, RequestError
from service.vision.bmp import HEADER_SIZES


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
    if data[:2] == b"BM" and len(data) >= 18 and unpack_from("<I", data, 14)[0] in HEADER_SIZES:
        return Format.BMP
    raise RequestError(
        Reason.NOT_AN_IMAGE,
        f"The bytes are no picture of a known format: they begin with {data[:8].hex(' ')}. "
        f"Send one of {', '.join(Format)}.",
    )
