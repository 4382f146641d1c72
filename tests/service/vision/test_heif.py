"""AVIF and HEIC: the container, and the image that is coded in it."""

import io
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from service.errors import Reason, RequestError
from service.vision.decode import EncodedImage, decode
from service.vision.formats import READABLE, Format
from service.vision.heif import check_avif, still
from tests.service.vision.attack_images import avif_of, exif_of_entries

pytestmark = pytest.mark.skipif(Format.AVIF not in READABLE, reason="this Pillow has no AVIF")


@pytest.fixture(scope="module")
def avif(open_image, encoded):
    """Encode a photo: `avif("RGB", ...)`."""
    return lambda mode="RGB", size=(60, 40), **options: encoded(
        open_image("flower").resize(size).convert(mode), "AVIF", **options
    )


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA"])
@pytest.mark.parametrize("size", [(60, 40), (1, 1), (333, 77)])
def test_pixels_equal_pillows(avif, mode, size):
    data = avif(mode, size)
    assert np.array_equal(decode(data), Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_read(avif, orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    data = avif(exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.array_equal(decode(data), upright.convert("RGB"))
    assert (EncodedImage(data).width, EncodedImage(data).height) == upright.size


def test_the_orientation_in_xmp_is_ignored(avif):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    assert EncodedImage(avif(xmp=xmp)).height == 40


def test_the_still_image_of_an_animated_avif_is_decoded(open_image, encoded):
    frames = [open_image(name).resize((60, 40)) for name in ("flower", "china", "coffee")]
    data = encoded(frames[0], "AVIF", save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert Image.open(io.BytesIO(still(data))).n_frames == 1
    assert np.array_equal(decode(data), Image.open(io.BytesIO(data)).convert("RGB"))


def test_images_of_too_many_pixels_are_refused(avif):
    data = avif(size=(160, 107))
    assert decode(data, max_pixels=160 * 107).shape == (107, 160, 3)
    with pytest.raises(RequestError, match="160 x 107") as caught:
        decode(data, max_pixels=160 * 107 - 1)
    assert caught.value.reason is Reason.TOO_LARGE


def test_a_small_container_around_a_large_image_is_refused(avif):
    """The container says 16 x 16, but a decoder allocates memory for the coded size."""
    data = avif(size=(4000, 3000))
    size = struct.pack(">II", 4000, 3000)
    assert data.count(size) == 1
    with pytest.raises(RequestError, match="an image of 4000 x 3000 pixels in it") as caught:
        decode(data.replace(size, struct.pack(">II", 16, 16)), max_pixels=1_000_000)
    assert caught.value.reason is Reason.TOO_LARGE


def unit(kind: int, body: bytes) -> bytes:
    """An open bitstream unit of AV1 with its size."""
    size, length = b"", len(body)
    while length > 127:
        size += bytes([length & 127 | 128])
        length >>= 7
    return bytes([kind << 3 | 2]) + size + bytes([length]) + body


SEQUENCE = unit(1, bytes.fromhex("18156e40 00000000"))  # a short header


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (avif_of((2000, 9999), tail=SEQUENCE + unit(6, b"x") * 17), "more than 16 frames"),
        (avif_of((2000, 99999), tail=unit(15, b"") * 20_000), "more than 16384 units"),
        (avif_of(*[(2000, 9999)] * 80, tail=unit(15, b"x" * 9) * 300), "more than 16384 units"),
        (avif_of((2000, 9), parts=2, tail=SEQUENCE), "several places"),
        (avif_of() + struct.pack(">I4s", 8, b"free") * 2000, "more than 1024 boxes"),
        (avif_of(*[(0, 0)] * 50)[:400], "cut off"),
        (struct.pack(">I4s4sI", 16, b"ftyp", b"avif", 0), "unreadable|cannot|cut off"),
    ],
    ids=["frames", "units", "items", "parts", "boxes", "short", "nothing"],
)
def test_impossible_headers_are_refused(data, what):
    with pytest.raises(RequestError, match=what) as caught:
        decode(data)
    assert caught.value.reason is Reason.UNDECODABLE


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_are_refused_or_decoded(avif, data):
    damaged = bytearray(avif("RGBA"))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1) | st.integers(0, 400))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(1, len(damaged)) | st.just(len(damaged)))
    try:
        assert decode(bytes(damaged[:cut]), max_pixels=1_000_000).shape[2] == 3
    except RequestError as error:
        assert error.reason is not Reason.INTERNAL  # noqa: PT017 - or it is read


def test_unknown_boxes_are_skipped():
    check_avif(struct.pack(">I4s4sI", 16, b"ftyp", b"avif", 0) + struct.pack(">I4s", 0, b"mdat"), 10)
    check_avif(struct.pack(">I4s4sI", 16, b"ftyp", b"avif", 0) + struct.pack(">I4sQ", 1, b"mdat", 16), 10)
    check_avif(avif_of((2000, 0), tail=exif_of_entries(9)), 10)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_read_upright(open_image, orientation):
    """Needs the extra `heif`, whose library applies the orientation of the container, which takes precedence."""
    pillow_heif = pytest.importorskip("pillow_heif")
    image = open_image("flower").resize((96, 64))
    exif = Image.Exif()
    exif[0x112] = orientation
    data = io.BytesIO()
    pillow_heif.register_heif_opener()
    image.save(data, "HEIF", exif=exif.tobytes(), quality=95)
    image.getexif()[0x112] = orientation
    upright = ImageOps.exif_transpose(image)
    header = EncodedImage(data.getvalue())
    assert (header.width, header.height) == upright.size
    assert np.abs(decode(data.getvalue()).astype(int) - np.asarray(upright)).mean() < 6
    with pytest.raises(RequestError, match="million pixels"):
        decode(data.getvalue(), max_pixels=1000)
    with pytest.raises(RequestError, match="cut off or corrupt"):
        decode(data.getvalue()[:-1000])
