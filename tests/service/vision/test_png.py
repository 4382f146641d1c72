"""The chunks of a PNG."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from service.errors import Reason, RequestError
from service.vision import png
from service.vision.decode import decode
from tests.service.vision.attack_images import chunk, encoded, exif_of_entries, png_of, png_with

METADATA = {
    "text": chunk(b"tEXt", b"Software\0editor"),
    "1.5 MB of text": chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"x" * 1_500_000)),
    "text that is not compressed": chunk(b"zTXt", b"parameters\0\0" + b"x" * 1000),
    "XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b"<x:xmpmeta/>" * 200_000),
    "a large profile": chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(5_000_000))),
    "resolution": chunk(b"pHYs", struct.pack(">IIB", 1, 2, 3)),
    "a short time": chunk(b"tIME", b"\0"),
    "gamma of nothing": chunk(b"gAMA"),
    "an animation without frames": chunk(b"acTL", bytes(8)),
    "a frame of another size": chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 3, 3, 1, 1, 1, 1, 0, 0)),
    "an unknown chunk": chunk(b"prVt", bytes(3_000_000)),
}


@pytest.fixture(scope="module")
def small(open_image):
    return open_image("flower").resize((60, 40))


@pytest.mark.parametrize("place", [33, -12], ids=["in front of the pixels", "behind them"])
@pytest.mark.parametrize("wrong", [False, True], ids=["intact", "wrong checksum"])
@pytest.mark.parametrize("name", METADATA)
def test_metadata_does_not_affect_the_image(small, name, wrong, place):
    added = METADATA[name]
    if wrong:
        added = added[:-1] + bytes([added[-1] ^ 1])
    assert np.array_equal(decode(png_with(added, at=place, image=small)), small)


def test_a_damaged_transparency_chunk_is_ignored(small):
    """It is decoded as if the chunk were missing."""
    few = small.quantize(16)
    data = png_with(chunk(b"tRNS", bytes(16), wrong=True), at=encoded(few, "PNG").index(b"IDAT") - 4, image=few)
    assert np.array_equal(decode(data), few.convert("RGB"))
    assert (decode(data.replace(chunk(b"tRNS", bytes(16), wrong=True), chunk(b"tRNS", bytes(16)))) == 255).all()


def rows(image: Image.Image) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in np.asarray(image))


def test_pixels_may_be_in_many_chunks(small):
    packed = zlib.compress(rows(small))
    parts = [b"", *(packed[i : i + 1] for i in range(len(packed))), b""]
    assert np.array_equal(decode(png_of(60, 40, parts)), small)


def damage(data: bytes, kind: bytes, how: str) -> bytes:
    """A PNG with a wrong chunk of some kind."""
    at = data.index(kind)
    length = struct.unpack(">I", data[at - 4 : at])[0]
    body = bytearray(data[at + 4 : at + 4 + length])
    if how == "garbage":
        body[length // 3 : length // 3 + 200] = bytes(range(200))[: length - length // 3]
    elif how == "short":
        del body[length // 2 :]
    return data[: at - 4] + chunk(kind, bytes(body), wrong=how == "checksum") + data[at + 8 + length :]


@pytest.mark.parametrize(  # any bytes are colours, and indexes beyond a short palette are black
    ("kind", "how"),
    [(kind, how) for kind in (b"IHDR", b"IDAT") for how in ("garbage", "short", "checksum")] + [(b"PLTE", "checksum")],
)
@pytest.mark.parametrize("metadata", [b"", METADATA["1.5 MB of text"]], ids=["", "with text"])
def test_damage_in_a_chunk_that_pixels_depend_on_is_refused(small, kind, how, metadata):
    data = damage(png_with(metadata, image=small.quantize(64)), kind, how)
    with pytest.raises(RequestError) as caught:
        decode(data)
    assert caught.value.reason in (Reason.UNDECODABLE, Reason.TOO_LARGE)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (png_with(chunk(b"teSt") * (1 << 16)), "more than 65536 chunks"),
        (png_of(8, 8, [b""] * (1 << 16)), "more than 65536 chunks"),
        (png_of(8, 8, [b"abc"]).replace(chunk(b"IDAT", b"abc"), b""), "cut off or corrupt"),
        (b"\x89PNG" + bytes(100), "signature"),
        (b"\x89PNG\r\n\x1a\n" + chunk(b"IEND"), "no header"),
        (png_of(8, 8, [b"abc"], colour=3), "no palette"),
        (png_of(8, 8, []).replace(chunk(b"IEND"), chunk(b"IDAT") + chunk(b"tIME") + chunk(b"IDAT")), "between"),
    ],
    ids=["chunks", "empty pixels", "no pixels", "signature", "no header", "no palette", "split pixels"],
)
def test_impossible_headers_are_refused(data, what):
    with pytest.raises(RequestError, match=what) as caught:
        decode(data)
    assert caught.value.reason is Reason.UNDECODABLE


@pytest.mark.parametrize("place", [33, -12], ids=["in front of the pixels", "behind them"])
def test_the_first_exif_block_is_used(place):
    turned, upright = (chunk(b"eXIf", exif_of_entries(3, orientation)) for orientation in (6, 1))
    broken = chunk(b"eXIf", exif_of_entries(3, 8), wrong=True)
    assert png.read(png_with(broken, turned, upright, at=place)).orientation == 6
    assert png.read(png_with(upright, turned, at=place)).orientation == 1


def in_text(block: bytes, compressed: bool) -> bytes:
    """As ImageMagick writes EXIF without an eXIf chunk."""
    digits = block.hex()
    lines = "".join(f"{digits[i : i + 72]}\n" for i in range(0, len(digits), 72))
    text = f"\nexif\n{len(block):8}\n{lines}".encode()
    key = b"Raw profile type exif\0"
    return chunk(b"zTXt", key + b"\0" + zlib.compress(text)) if compressed else chunk(b"tEXt", key + text)


@pytest.mark.parametrize("compressed", [False, True])
def test_exif_in_a_text_chunk_is_read(compressed):
    """It is used if there is no eXIf chunk, as in Pillow."""
    turned, other = (in_text(b"Exif\0\0" + exif_of_entries(9, orientation), compressed) for orientation in (6, 3))
    data = png_with(turned, other)
    assert png.read(data).orientation == 6 == Image.open(io.BytesIO(png_with(turned))).getexif()[0x112]
    assert png.read(png_with(turned, chunk(b"eXIf", exif_of_entries(3, 8)))).orientation == 8


@pytest.mark.parametrize("text", [b"", b"\n\n\n\nzz", b"\nexif\n 4\nabc", b"\nexif\n 9\n" + b"4" * 1_000_000])
@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt"])
def test_a_damaged_text_chunk_is_ignored(kind, text):
    key = b"Raw profile type exif\0"
    for body in (text, b"\0" + zlib.compress(text)):
        assert png.read(png_with(chunk(kind, key + body))).orientation == 1


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def test_the_orientation_in_xmp_is_ignored():
    assert png.read(png_with(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP))).orientation == 1
