"""The segments of a JPEG."""

import contextlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from service.errors import Reason, RequestError
from service.vision import jpeg
from service.vision.decode import decode
from tests.service.vision.attack_images import exif_of_entries, jpeg_of_scans, jpeg_segment, jpeg_with

XMP = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:Description tiff:Orientation='6'/></x:xmpmeta>"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("progressive", [False, True])
def test_the_exif_orientation_is_read(encoded, orientation, progressive):
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "A maker", orientation
    data = encoded(Image.new("RGB", (16, 8)), "JPEG", exif=exif, progressive=progressive, comment="not an EXIF")
    assert jpeg.read(data).orientation == orientation


@pytest.mark.parametrize(("first", "second"), [(6, 1), (1, 6), (3, 8)])
def test_the_first_exif_block_is_used(first, second):
    """As in Pillow and browsers, whatever other segments there are."""
    blocks = [jpeg_segment(0xE1, b"Exif\0\0" + exif_of_entries(4, orientation)) for orientation in (first, second)]
    data = jpeg_with(jpeg_segment(0xE1, XMP) + blocks[0] + jpeg_segment(0xE2, bytes(99)) + blocks[1])
    assert jpeg.read(data).orientation == first == Image.open(io.BytesIO(data)).getexif()[0x112]
    assert jpeg.read(jpeg_with(jpeg_segment(0xE1, b"Exif\0\0broken") + blocks[0])).orientation == 1


def test_the_orientation_in_xmp_is_ignored():
    assert jpeg.read(jpeg_with(jpeg_segment(0xE1, XMP))).orientation == 1


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_invalid_orientation_means_upright(encoded, value):
    exif = Image.Exif()
    exif[0x0112] = value
    assert jpeg.read(encoded(Image.new("RGB", (16, 8)), "JPEG", exif=exif)).orientation == 1


@given(data=st.data())
def test_a_damaged_exif_header_is_ignored(encoded, data):
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = bytearray(encoded(Image.new("RGB", (16, 8)), "JPEG", exif=exif))
    for _ in range(data.draw(st.integers(1, 5))):
        whole[data.draw(st.integers(2, 60))] = data.draw(st.integers(0, 255))
    assert 1 <= jpeg.read(bytes(whole[: data.draw(st.integers(0, len(whole)))])).orientation <= 8


@given(st.lists(st.sampled_from([b"\xff", b"\xda", b"\xd9", b"\xc2", b"\0", b"\x08", b"\xe1Exif"]), max_size=60))
def test_any_bytes_are_read_or_refused(parts):
    with contextlib.suppress(RequestError):
        assert 1 <= jpeg.read(b"\xff\xd8" + b"".join(parts)).orientation <= 8


def test_metadata_is_removed(open_image, encoded):
    """Pillow reads the same pixels without it."""
    plain = encoded(open_image("flower").convert("CMYK"), "JPEG")
    extra = jpeg_segment(0xE1, b"Exif\0\0") + jpeg_segment(0xFE, b"\xff\xda") + jpeg_segment(0xED, bytes(999))
    data = plain[:2] + extra + b"\xff" * 7 + plain[2:]
    assert jpeg.read(plain).without_metadata(plain) == plain
    assert jpeg.read(data).without_metadata(data) == plain[:2] + b"\xff" * 7 + plain[2:]


LARGE, MANY = (7000, 7000), 21  # 49 megapixels: 20 scans


@pytest.mark.parametrize("kind", ["plain", "a false end in a comment", "garbage between segments"])
def test_too_many_scans_are_refused(kind):
    few, many = (jpeg_of_scans(Image.new("L", LARGE), count) for count in (MANY - 1, MANY))
    jpeg.read(few)
    if kind == "a false end in a comment":
        last = many.rindex(b"\xff\xda")
        many = many[:last] + jpeg_segment(0xFE, b"\xff\xd9") + many[last:]
    elif kind == "garbage between segments":
        frame = many.index(b"\xff\xc2")
        many = many[:frame] + b"garbage" + many[frame:]
    with pytest.raises(RequestError, match=r"more than 20 scans of 49\.0 million pixels"):
        jpeg.read(many)


def test_bytes_that_look_like_a_scan_are_not_counted(open_image, encoded):
    """They may be in metadata, or after the end of the image, where cameras store videos."""
    exif = b"Exif\0\0" + b"\xff\xda\xff" * 500
    for options in ({"progressive": True}, {}):
        data = encoded(open_image("flower"), "JPEG", exif=exif, comment=b"\xff\xda" * 300, **options)
        jpeg.read(data + b"\xff\xda" * 1000)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\xff\xd8" + b"\xff" * 70_000 + b"\0" * 8, "garbage of more than 65536 bytes"),
        (b"\xff\xd8" + b"\xff\xd0" * 40_000, "garbage of more than 65536 bytes"),
        (jpeg_with(jpeg_segment(0xFE) * 4097), "more than 4096 segments"),
        (jpeg_with(jpeg_segment(0xDB, bytes(65_000)) * 5), "more than 262144 bytes of tables"),
    ],
    ids=["fill bytes", "restart markers", "segments", "tables"],
)
def test_files_that_no_encoder_writes_are_refused(data, what):
    with pytest.raises(RequestError, match=what) as caught:
        jpeg.read(data)
    assert caught.value.reason is Reason.UNDECODABLE


@pytest.mark.parametrize(
    ("place", "value"),
    [(1, 0xC3), (1, 0xC5), (1, 0xC9), (1, 0xCB), (4, 12), (4, 16), (5, 0), (9, 255), (11, 0x44)],
    ids=["lossless", "hierarchical", "arithmetic", "lossless arithmetic", "12 bits", "16 bits", "DNL", "255", "4x4"],
)
def test_rare_kinds_of_jpeg_are_refused_or_decoded(open_image, encoded, place, value):
    """Only the frame header is changed; the rest is an ordinary JPEG."""
    data = bytearray(encoded(open_image("flower"), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + place] = value
    if value == 0 and place == 5:
        data[frame + 6] = 0
    with contextlib.suppress(RequestError):
        assert decode(bytes(data)).shape[2] == 3
