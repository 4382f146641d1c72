"""Image files of all kinds, sent to a running server."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageDraw

from service.vision.formats import READABLE, Format
from tests.conftest import serving
from tests.service.vision.attack_images import (
    chunk,
    encoded,
    exif_of_entries,
    jpeg_segment,
    png_with,
    tiff_of,
    tiff_tags,
    webp_with,
)
from tests.service.vision.test_formats import NAMED


@pytest.fixture(scope="module")
def server(models, tmp_path_factory):
    with serving(tmp_path_factory.mktemp("images") / "log", ZOOSERVE_LOAD="lenet5") as server:
        server.wait(200)
        yield server


@pytest.fixture(scope="module")
def classify(server):
    def send(data: bytes):
        return server.client.post("/v1/classify?model=lenet5", content=data, headers={"Content-Type": "image/jpeg"})

    return send


def digit() -> np.ndarray:
    """A digit 7 like those of MNIST: white on black, uint8 [28, 28]."""
    image = Image.new("L", (280, 280))
    ImageDraw.Draw(image).line([(85, 75), (195, 75), (130, 215)], "white", 26, "curve")
    return np.asarray(image.resize((28, 28), Image.Resampling.LANCZOS))


GREY = Image.fromarray(digit())
TWELVE = Image.fromarray((digit().astype(np.uint16) << 4) | (digit() >> 4))
SIXTEEN = Image.fromarray(digit().astype(np.uint16) * 257)


def twelve_in_tiff() -> bytes:
    tags = tiff_tags(28, 28, t258=(3, [16]), t273=(4, [16]), t278=(4, [28]), t279=(4, [28 * 28 * 2]), t281=(3, [4095]))
    return tiff_of(tags, tail=np.asarray(TWELVE).astype("<u2").tobytes())


SEVENS = {
    "8 bits": encoded(GREY, "PNG"),
    "12 bits in 16, PNG": png_with(chunk(b"sBIT", b"\x0c"), image=TWELVE),
    "12 bits in 16, TIFF": twelve_in_tiff(),
    "16 bits that came from 12": png_with(chunk(b"sBIT", b"\x0c"), image=SIXTEEN),
    "1.5 MB of text": png_with(chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"x" * 1_500_000)), image=GREY),
    "XMP of 4 MB": png_with(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b"<x/>" * 1_000_000), image=GREY),
    "a profile of 4 MB": png_with(chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(4_000_000))), image=GREY),
    "a text with a wrong checksum": png_with(chunk(b"tEXt", b"Software\0editor", wrong=True), image=GREY),
    "a profile with a wrong checksum": png_with(chunk(b"iCCP", b"icc\0\0x", wrong=True), image=GREY),
    "a resolution with a wrong checksum": png_with(chunk(b"pHYs", bytes(9), wrong=True), image=GREY),
    "WebP": encoded(GREY, "WEBP", lossless=True),
    "AVIF": encoded(GREY, "AVIF", quality=100) if Format.AVIF in READABLE else encoded(GREY, "PNG"),
}


@pytest.mark.parametrize("name", SEVENS)
def test_a_digit_is_recognised_in_every_format(classify, name):
    response = classify(SEVENS[name])
    assert response.status_code == 200, response.text
    first = response.json()["predictions"][0]
    assert (first["label"], first["score"] > 0.95) == ("7", True)


SMALL = Image.new("RGB", (60, 40))


def turned(*orientations: int) -> dict[str, bytes]:
    """A file of 60 x 40 pixels for each format that can have several EXIF blocks, with these."""
    blocks = [exif_of_entries(3, orientation) for orientation in orientations]
    plain = encoded(SMALL, "JPEG")
    segments = b"".join(jpeg_segment(0xE1, b"Exif\0\0" + block) for block in blocks)
    return {
        "JPEG": plain[:2] + segments + plain[2:],
        "PNG": png_with(*(chunk(b"eXIf", block) for block in blocks), image=SMALL),
        "PNG, behind the pixels": png_with(*(chunk(b"eXIf", block) for block in blocks), at=-12, image=SMALL),
        "WebP": webp_with(after=[(b"EXIF", block) for block in blocks], flags=8),
    }


@pytest.mark.parametrize("form", ["JPEG", "PNG", "PNG, behind the pixels", "WebP"])
@pytest.mark.parametrize(("first", "second"), [(6, 1), (1, 6)])
def test_of_several_exif_blocks_the_first_is_used(classify, form, first, second):
    image = classify(turned(first, second)[form]).json()["image"]
    assert (image["width"] > image["height"]) == (first == 1)


def damaged() -> bytes:
    """A PNG with wrong bytes in the middle of its pixels, and a right checksum."""
    png = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)), "PNG")
    at = png.index(b"IDAT") + 4
    length = struct.unpack(">I", png[at - 8 : at - 4])[0]
    data = bytearray(png[at : at + length])
    data[length // 3 : length // 3 + 200] = bytes(range(200))
    return png[: at - 8] + chunk(b"IDAT", bytes(data)) + png[at + length + 4 :]


def test_damaged_pixels_are_undecodable(classify):
    response = classify(damaged())
    assert response.status_code == 400
    assert "The PNG is cut off or corrupt" in response.json()["detail"]


@pytest.mark.parametrize("what", [what for what in NAMED if "HEIC" not in what or Format.HEIF not in READABLE])
def test_the_error_names_the_kind_of_file(classify, what):
    response = classify(NAMED[what])
    assert response.status_code == 415
    assert "Send" in response.json()["detail"]
