"""Colours that cannot be converted, and files of 16 bits per value that use fewer bits."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from service.errors import RequestError
from service.vision.decode import decode
from service.vision.pixels import eight_bits, to_rgb
from tests.service.vision.attack_images import chunk, tiff_of, tiff_tags


@pytest.mark.parametrize("bits", range(1, 17))
def test_the_bits_that_are_used_become_eight(bits):
    """The largest value of these bits is white, half of it is grey. Larger values mean that all 16 bits are used."""
    top = (1 << bits) - 1
    few = eight_bits(np.array([0, top // 2, top], np.uint16), bits)
    assert few[0] == 0
    assert few[2] == 255
    assert abs(int(few[1]) - 255 * (top // 2) / top) <= 1
    assert eight_bits(np.array([0, 4096, 65535], np.uint16), bits).tolist() == [0, 16, 255]


def test_an_empty_array_is_accepted():
    assert eight_bits(np.zeros((0, 3), np.uint16), 12).shape == (0, 3)


def test_colours_that_cannot_be_converted_are_refused():
    image = Image.new("P", (8, 8))
    image.info["transparency"] = "half"
    with pytest.raises(RequestError, match="mode P"):
        to_rgb(image)


SHAPES = {"grey": [0], "grey with alpha": [0, 3], "colour": [0, 1, 2], "colour with alpha": [0, 1, 2, 3]}
COLOUR_TYPE = {1: 0, 2: 4, 3: 2, 4: 6}


def png(values: np.ndarray, significant: int) -> bytes:
    """A PNG of 16 bits per value: uint16 [h, w, channels]."""
    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPE[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = chunk(b"IHDR", header) + chunk(b"sBIT", bytes([significant] * channels))
    return b"\x89PNG\r\n\x1a\n" + chunks + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND")


def tiff(values: np.ndarray, significant: int, order: str = "<", tag: int = 281) -> bytes:
    height, width, channels = values.shape
    tags = tiff_tags(width, height, t273=(4, [16]), t278=(4, [height]), t279=(4, [values.nbytes]))
    tags |= {258: (3, [16] * channels), 277: (3, [channels]), 262: (3, [1 if channels < 3 else 2])}
    tags |= {tag: (3, [(1 << significant) - 1] * channels)}
    if channels in (2, 4):
        tags |= {338: (3, [2])}
    return tiff_of(tags, order=order, tail=values.astype(f"{order}u2").tobytes())


@pytest.fixture(scope="module")
def small(open_image):
    """uint8 [40, 60, 4], with all of its values and transparency."""
    colours = np.asarray(open_image("flower").resize((60, 40)))
    alpha = np.linspace(0, 255, 40 * 60).astype(np.uint8).reshape(40, 60, 1)
    return np.concatenate([colours, alpha], axis=2)


def shown(image: np.ndarray) -> np.ndarray:
    """The image as it is decoded from a file of 8 bits per value."""
    data = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(data, "PNG")
    return decode(data.getvalue())


WRITERS = {
    "png": png,
    "tiff": tiff,
    "tiff, big-endian": lambda values, bits: tiff(values, bits, ">"),
    "tiff, signed": lambda values, bits: tiff(values, bits, tag=341),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bits", [9, 10, 12, 14])
def test_values_within_the_stated_bits_are_read_as_in_8_bits(small, writer, shape, bits):
    if writer.startswith("tiff") and shape == "grey with alpha":
        return  # Pillow reads none of 16 bits
    values = small[:, :, SHAPES[shape]]
    few = (values.astype(np.uint16) << (bits - 8)) | (values >> (16 - bits))
    assert np.array_equal(decode(WRITERS[writer](few, bits)), shown(values))


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bits", [1, 8, 10, 12, 16])
def test_values_of_all_16_bits_are_not_shifted(small, writer, shape, bits):
    if writer.startswith("tiff") and shape == "grey with alpha":
        return
    values = small[:, :, SHAPES[shape]]
    assert np.array_equal(decode(WRITERS[writer](values.astype(np.uint16) * 257, bits)), shown(values))


def test_a_maximum_that_is_not_a_power_of_two_less_one_is_ignored(small):
    """Some files store the largest value that occurs as `MaxSampleValue`: a dark image of 16 bits stays dark."""
    dark = small[:, :, :1].astype(np.uint16) * 257 >> 5
    data = tiff(dark, 12).replace(struct.pack("<HHIH", 281, 3, 1, 4095), struct.pack("<HHIH", 281, 3, 1, 2040))
    assert decode(data).max() == dark.max() >> 8


def test_packed_values_of_12_bits_are_read(small):
    """Two values in three bytes, as microscopes write them."""
    grey = small[:, :, 0].astype(np.uint16) << 4
    pairs = grey.reshape(-1, 2)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], axis=1)
    tags = tiff_tags(60, 40, t258=(3, [12]), t273=(4, [16]), t278=(4, [40]), t279=(4, [packed.size]))
    data = tiff_of(tags, tail=packed.astype(np.uint8).tobytes())
    assert np.array_equal(decode(data)[:, :, 0], grey >> 4)


def test_damaged_pixels_are_refused(small):
    values = small[:, :, :3].astype(np.uint16)
    data = bytearray(png(values, 12))
    data[len(data) // 2] ^= 255
    with pytest.raises(RequestError, match="checksum"):
        decode(bytes(data))
