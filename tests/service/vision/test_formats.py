"""What a picture's header says."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from service.errors import Reason, RequestError
from service.vision.formats import Format, jpeg_orientation, many_scans, sniff, webp_size

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow, about damaged files

ICO = b"\x00\x00\x01\x00\x01\x00\x10\x10"
HEIC = b"\x00\x00\x00\x18ftypheic"


@pytest.mark.parametrize("form", list(Format))
def test_formats_are_told_by_content(picture, encoded, form):
    assert sniff(encoded(picture("flower"), form)) is form


@pytest.mark.parametrize(
    "data", [b"a cat", b"<svg/>", b"BMW sells cars and more", ICO, HEIC, b"%PDF-1.7", b"\xff\xd8", b"R"]
)
def test_what_is_no_picture_is_refused(data):
    with pytest.raises(RequestError, match="JPEG, PNG, WEBP, BMP, GIF, TIFF") as caught:
        sniff(data)
    assert caught.value.reason is Reason.NOT_AN_IMAGE


def test_no_bytes_are_undecodable():
    with pytest.raises(RequestError, match="no bytes") as caught:
        sniff(b"")
    assert caught.value.reason is Reason.UNDECODABLE


@given(st.binary(max_size=64))
def test_any_bytes_are_told_or_refused(data):
    with contextlib.suppress(RequestError):
        assert sniff(data) in Format


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_orientation(encoded, orientation, progressive):
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "A maker", orientation
    data = encoded(Image.new("RGB", (16, 8)), "JPEG", exif=exif, progressive=progressive, comment="not an EXIF")
    assert jpeg_orientation(data) == orientation


def test_scans_are_counted(picture, encoded):
    """Not those in metadata, nor behind the picture's end, where cameras put whole videos; but those behind garbage."""
    exif = b"Exif\0\0" + b"\xff\xda\xff" * 500
    data = encoded(picture("flower"), "JPEG", exif=exif, progressive=True, comment=b"\xff\xda" * 300)
    data += b"\xff\xda" * 1000
    assert many_scans(data, 9)
    assert not many_scans(data, 10)
    frame = data.index(b"\xff\xc2")
    assert many_scans(data[:frame] + b"garbage" + data[frame:], 9)


def test_a_jpeg_of_one_pass_has_one_scan(picture, encoded):
    data = encoded(picture("flower"), "JPEG", comment=b"\xff\xda" * 300)
    assert not many_scans(data + b"\xff\xda" * 1000, 1)


@pytest.mark.parametrize("size", [(1, 1), (160, 107), (3000, 7)])
@pytest.mark.parametrize("options", [{"quality": 80}, {"lossless": True}, {"quality": 80, "exif": b"Exif\0\0"}])
def test_webp_size(encoded, size, options):
    assert webp_size(encoded(Image.new("RGB", size), "WEBP", **options)) == size


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_a_nonsensical_orientation_is_upright(encoded, value):
    exif = Image.Exif()
    exif[0x0112] = value
    assert jpeg_orientation(encoded(Image.new("RGB", (16, 8)), "JPEG", exif=exif)) == 1


@given(data=st.data())
def test_a_broken_header_spoils_nothing(encoded, data):
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = bytearray(encoded(Image.new("RGB", (16, 8)), "JPEG", exif=exif))
    for _ in range(data.draw(st.integers(1, 5))):
        whole[data.draw(st.integers(2, 60))] = data.draw(st.integers(0, 255))
    assert 1 <= jpeg_orientation(bytes(whole[: data.draw(st.integers(0, len(whole)))])) <= 8
