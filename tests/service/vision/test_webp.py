"""The chunks of a WebP."""

import io

import numpy as np
import pytest
from PIL import Image

from service.errors import Reason, RequestError
from service.vision import webp
from service.vision.decode import decode
from tests.service.vision.attack_images import exif_of_entries, riff, webp_frames, webp_with


@pytest.mark.parametrize("size", [(1, 1), (160, 107), (3000, 7)])
@pytest.mark.parametrize("options", [{"quality": 80}, {"lossless": True}, {"quality": 80, "exif": b"Exif\0\0"}])
def test_width_and_height_are_read(encoded, size, options):
    header = webp.read(encoded(Image.new("RGB", size), "WEBP", **options))
    assert (header.width, header.height) == size


METADATA = {
    "profile": (b"ICCP", bytes(999)),
    "XMP": (b"XMP ", b"<x:xmpmeta/>"),
    "broken EXIF": (b"EXIF", b"II"),
    "unknown": (b"abcd", bytes(3_000_001)),
}


@pytest.mark.parametrize("name", METADATA)
def test_metadata_does_not_affect_the_image(name):
    plain = webp_with()
    for data in (webp_with(METADATA[name], flags=0x2C), webp_with(after=[METADATA[name]] * 50, flags=0x2C)):
        assert webp.read(data).pixels == plain
        assert np.array_equal(decode(data), decode(plain))


@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
def test_the_first_exif_block_is_used(prefix):
    blocks = [(b"EXIF", prefix + exif_of_entries(4, orientation)) for orientation in (6, 1)]
    assert webp.read(webp_with(after=blocks)).orientation == 6
    assert webp.read(webp_with(after=blocks[::-1])).orientation == 1


def test_the_orientation_in_xmp_is_ignored():
    xmp = b"<x:xmpmeta><rdf:Description tiff:Orientation='6'/></x:xmpmeta>"
    assert webp.read(webp_with(after=[(b"XMP ", xmp)], flags=4)).orientation == 1


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("options", [{"quality": 80}, {"lossless": True, "method": 0}])
def test_the_first_frame_of_an_animation_is_decoded(open_image, encoded, mode, options):
    frames = [open_image(name).resize((60, 40)).convert(mode) for name in ("flower", "china", "coffee")]
    data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], exif=b"Exif\0\0", **options)
    assert len(webp.read(data).pixels) < len(data) / 2
    assert np.array_equal(decode(data), Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("options", [{"quality": 80}, {"lossless": True, "method": 0}])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("alpha", [0, 1])
@pytest.mark.parametrize("place", [(0, 0), (4, 8)])
def test_a_frame_is_placed_on_its_canvas(open_image, mode, alpha, place, options):
    if mode == "RGBA" and not alpha:
        return  # no encoder forgets to say so
    image = open_image("flower").resize((30, 20)).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize((30, 20)))
    data = webp_frames(image, 2, canvas=(40, 30), at=place, alpha=alpha, **options)
    seen = Image.open(io.BytesIO(data)).convert("RGBA")
    expected = Image.new("RGB", seen.size, "white")
    expected.paste(seen, mask=seen)
    assert np.array_equal(decode(data), expected)


def test_a_frame_beyond_its_canvas_is_refused(open_image):
    for at, reason in (((20, 0), Reason.UNDECODABLE), ((0, 0), Reason.TOO_LARGE)):
        data = webp_frames(open_image("flower").resize((30, 20)), canvas=(40, 30), at=at)
        with pytest.raises(RequestError) as caught:
            decode(data, max_pixels=1200 if at[0] else 1199)
        assert caught.value.reason is reason


def test_transparent_pixels_are_blended_with_white(open_image, encoded):
    image = open_image("flower").resize((60, 40))
    image.putalpha(Image.linear_gradient("L").resize((60, 40)))
    data = encoded(image, "WEBP")
    seen = Image.open(io.BytesIO(data))
    expected = Image.new("RGB", seen.size, "white")
    expected.paste(seen, mask=seen)
    assert np.array_equal(decode(data), expected)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (webp_with(after=[(b"abcd", b"")] * 66_000), "more than 65536 chunks"),
        (webp_with(*[(b"abcd", b"")] * 66_000), "more than 65536 chunks"),
        (riff((b"VP8X", bytes(10))), "cannot be read"),
        (riff((b"VP8 ", bytes(10))), "cannot be read"),
        (riff((b"ICCP", bytes(10))), "cannot be read"),
        (riff(), "cannot be read"),
    ],
    ids=["chunks behind", "chunks in front", "no pixels", "no header", "no image", "nothing"],
)
def test_a_file_without_pixels_is_refused(data, what):
    with pytest.raises(RequestError, match=what) as caught:
        decode(data)
    assert caught.value.reason is Reason.UNDECODABLE
