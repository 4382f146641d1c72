"""Recognition of formats, and the errors for files that cannot be decoded."""

import contextlib
import importlib.util

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import Reason, RequestError
from service.vision.formats import READABLE, Format, check_size, sniff


def brand(main: bytes, *compatible: bytes) -> bytes:
    """The start of a file in the ISO base media format."""
    body = b"ftyp" + main + bytes(4) + b"".join(compatible)
    return (len(body) + 4).to_bytes(4, "big") + body + bytes(200)


@pytest.mark.parametrize("form", [form for form in READABLE if form is not Format.HEIF])
def test_formats_are_recognised_by_content(open_image, encoded, form):
    assert sniff(encoded(open_image("flower").resize((60, 40)), form)) is form


@pytest.mark.parametrize("data", [b"a cat", b"BMW sells cars and more", b"\xff\xd8", b"R", b"<a/>", bytes(300)])
def test_files_that_are_not_images_are_refused(data):
    with pytest.raises(
        RequestError, match=r"not an image of a known format: they begin with .* JPEG, PNG, WEBP"
    ) as caught:
        sniff(data)
    assert caught.value.reason is Reason.NOT_AN_IMAGE


NAMED = {
    "HEIC, the format of an iPhone": brand(b"heic", b"mif1", b"heic"),
    "is HEIC": brand(b"mif1", b"mif1", b"heix"),
    "a HEIF image": brand(b"mif1", b"mif1", b"jpeg"),
    r"a video \(MP4 or QuickTime\)": brand(b"isom", b"iso2", b"avc1", b"mp41"),
    r"a video \(MP4 or": brand(b"qt  "),
    "a video": bytes(4) + b"moov" + bytes(200),
    r"a video \(Matroska or WebM\)": b"\x1a\x45\xdf\xa3" + bytes(99),
    r"a video \(AVI\)": b"RIFF\0\0\0\0AVI LIST",
    r"a video \(MPEG\)": b"\0\0\1\xba" + bytes(99),
    "transport stream": (b"G" + bytes(187)) * 3,
    "a camera's raw file": brand(b"crx ", b"isom"),
    "a PDF document": b"%PDF-1.7",
    "an SVG drawing": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "an SVG": b'\xef\xbb\xbf\n<?xml version="1.0"?><!-- made by --><svg/>',
    "an HTML page": b"<!DOCTYPE html><title>404</title>",
    "a JPEG XL image": b"\xff\x0a" + bytes(99),
    "a JPEG 2000 image": b"\0\0\0\x0cjP  \r\n\x87\n",
    "an icon": b"\x00\x00\x01\x00\x01\x00\x10\x10",
    "a ZIP archive": b"PK\3\4" + bytes(99),
    "a DICOM file": bytes(128) + b"DICM",
    r"a sound \(WAV\)": b"RIFF\0\0\0\0WAVEfmt ",
}


@pytest.mark.parametrize("what", NAMED)
def test_the_error_names_the_kind_of_file(monkeypatch, what):
    monkeypatch.setattr("service.vision.formats.READABLE", tuple(form for form in READABLE if form is not Format.HEIF))
    with pytest.raises(RequestError, match=what) as caught:
        sniff(NAMED[what])
    assert caught.value.reason is Reason.NOT_AN_IMAGE
    assert "Send one of JPEG, PNG, WEBP, BMP, GIF, TIFF" in caught.value.detail


def test_the_error_names_avif_if_it_cannot_be_decoded(monkeypatch):
    monkeypatch.setattr("service.vision.formats.READABLE", (Format.JPEG,))
    with pytest.raises(RequestError, match=r"The image is AVIF, which is not decoded here\. Send one of JPEG\."):
        sniff(brand(b"avif"))


def test_heic_is_readable_if_its_library_is_installed():
    assert (Format.HEIF in READABLE) == (importlib.util.find_spec("pillow_heif") is not None)


def test_an_empty_file_is_undecodable():
    with pytest.raises(RequestError, match="no bytes") as caught:
        sniff(b"")
    assert caught.value.reason is Reason.UNDECODABLE


@given(st.binary(max_size=64))
def test_any_bytes_are_recognised_or_refused(data):
    with contextlib.suppress(RequestError):
        assert sniff(data) in Format


@pytest.mark.parametrize(("width", "height"), [(100, 10), (1, 1000), (1000, 1)])
def test_the_limit_itself_is_allowed(width, height):
    check_size(width, height, 1000)


@pytest.mark.parametrize(
    ("width", "height", "message"),
    [
        (1001, 1, "1001 x 1 = 0.0 million pixels"),
        (50_000, 50_000, "2500.0 million pixels"),
        (1_000_001, 1, "sides of at most 1000000"),
        (1, 1_000_001, "sides of at most 1000000"),
    ],
)
def test_too_many_pixels_or_too_long_a_side_is_refused(width, height, message):
    with pytest.raises(RequestError, match=message) as caught:
        check_size(width, height, 1000 if "million" in message else 1 << 30)
    assert caught.value.reason is Reason.TOO_LARGE
