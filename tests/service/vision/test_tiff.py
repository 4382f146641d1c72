"""The directory of a TIFF: checks, and the directory that is written instead."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from service.errors import Reason, RequestError
from service.vision import tiff
from service.vision.decode import decode
from tests.service.vision.attack_images import (
    exif_of_entries,
    jpeg_of_scans,
    tiff_jpeg,
    tiff_of,
    tiff_same_data,
    tiff_strips,
    tiff_tags,
    tiff_tiles,
)

FORMS = [(order, big) for order in "<>" for big in (False, True)]
PIXELS = np.random.default_rng(5).integers(0, 256, (64, 64), np.uint8)


COMPRESSIONS = ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"]
MODES = ["RGB", "L", "YCbCr", "CMYK", "RGBA", "LA", "P", "1", "I;16"]


@pytest.mark.parametrize(  # libtiff writes no JPEG of the last modes
    ("compression", "mode"),
    [(compression, mode) for compression in COMPRESSIONS for mode in MODES[: 4 if compression == "jpeg" else None]],
)
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_pixels_equal_pillows(open_image, encoded, mode, compression, orientation):
    """They equal those that Pillow reads from the original file."""
    small = open_image("flower").resize((61, 40))
    image = small.quantize(40) if mode == "P" else small.convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112], exif[0x0131] = orientation, "a program" * 100
    data = encoded(image, "TIFF", compression=compression, exif=exif, strip_size=600, dpi=(72, 72))
    seen = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if mode == "I;16":
        seen = Image.fromarray((np.asarray(seen) >> 8).astype(np.uint8))
    if seen.has_transparency_data:
        white = Image.new("RGB", seen.size, "white")
        white.paste(seen.convert("RGBA"), mask=seen.convert("RGBA"))
        seen = white
    assert np.array_equal(decode(data), seen.convert("RGB"))


@pytest.mark.parametrize(("order", "big"), FORMS)
@pytest.mark.parametrize("gap", [0, 3], ids=["contiguous", "with gaps"])
def test_strips_are_read(order, big, gap):
    rows, kind = 5, 16 if big else 4
    strips = [PIXELS[i : i + rows].tobytes() for i in range(0, 64, rows)]
    offsets = [16 + i * (64 * rows + gap) for i in range(len(strips))]
    tags = tiff_tags(64, 64, t273=(kind, offsets), t278=(3, [rows]), t279=(kind, [len(strip) for strip in strips]))
    data = tiff_of(tags, order=order, big=big, tail=bytes(gap).join(strips))
    assert np.array_equal(decode(data)[:, :, 0], PIXELS)


@pytest.mark.parametrize(("order", "big"), FORMS)
def test_tiles_are_read(order, big):
    tiles = [PIXELS[y : y + 16, x : x + 16].tobytes() for y in range(0, 64, 16) for x in range(0, 64, 16)]
    offsets = [16 + 256 * i for i in range(16)]
    tags = tiff_tags(64, 64, t322=(3, [16]), t323=(3, [16]), t324=(4, offsets), t325=(3, [256] * 16))
    assert np.array_equal(decode(tiff_of(tags, order=order, big=big, tail=b"".join(tiles)))[:, :, 0], PIXELS)


@pytest.mark.parametrize(("order", "big"), FORMS)
@pytest.mark.parametrize("photometric", [0, 1], ids=["0 is white", "0 is black"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("deflated", [False, True])
def test_what_zero_is(order, big, photometric, bits, deflated):
    """Pillow takes 0 for black wherever grey levels have 16 bits."""
    stored = PIXELS if photometric else 255 - PIXELS
    values = stored if bits == 8 else (stored.astype(np.uint16) * 257).astype(f"{order}u2")
    data = zlib.compress(values.tobytes()) if deflated else values.tobytes()
    how = {258: (3, [bits]), 259: (3, [8 if deflated else 1]), 262: (3, [photometric])}
    tags = tiff_tags(64, 64, t273=(4, [16]), t278=(3, [64]), t279=(4, [len(data)])) | how
    assert np.array_equal(decode(tiff_of(tags, order=order, big=big, tail=data))[:, :, 0], PIXELS)


@pytest.mark.parametrize(("order", "big"), FORMS)
@pytest.mark.parametrize(("bits", "deflated"), [(8, False), (8, True), (16, False), (16, True)])
def test_separate_planes(order, big, bits, deflated):
    """Pillow reads uncompressed ones of 16 bits as if they had 8: they are refused."""
    planes = [PIXELS, PIXELS.T, PIXELS[::-1]]
    stored = [(p if bits == 8 else (p.astype(np.uint16) * 257).astype(f"{order}u2")).tobytes() for p in planes]
    stored = [zlib.compress(p) for p in stored] if deflated else stored
    offsets = [16 + sum(map(len, stored[:i])) for i in range(3)]
    how = {258: (3, [bits] * 3), 259: (3, [8 if deflated else 1]), 262: (3, [2]), 277: (3, [3]), 284: (3, [2])}
    tags = tiff_tags(64, 64, t273=(4, offsets), t278=(3, [64]), t279=(4, [len(p) for p in stored])) | how
    data = tiff_of(tags, order=order, big=big, tail=b"".join(stored))
    if bits == 16 and not deflated:
        with pytest.raises(RequestError, match="16 bits per value in separate planes"):
            decode(data)
        return
    assert np.array_equal(decode(data), np.dstack(planes))


@pytest.mark.parametrize(("order", "big"), FORMS)
@pytest.mark.parametrize("compression", [1, 5], ids=["raw", "LZW"])
@pytest.mark.parametrize("make", [tiff_strips, tiff_tiles])
def test_more_pieces_than_the_size_allows_are_refused(make, compression, order, big):
    with pytest.raises(
        RequestError, match=r"65 values in tag (273|324), where 64 x 64 pixels can have (64|16)"
    ) as caught:
        decode(make(65, compression=compression, order=order, big=big))
    assert caught.value.reason is Reason.UNDECODABLE


def overlapping(count: int, size: int) -> bytes:
    """A compressed TIFF whose strips share the same bytes."""
    tags = tiff_tags(64, count, t259=(3, [8]), t273=(4, [16] * count), t278=(4, [1]), t279=(4, [size] * count))
    return tiff_of(tags, tail=bytes(size))


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (tiff_strips(0), "neither strips nor tiles"),
        (tiff_of(tiff_tags(64, 64)), "neither strips nor tiles"),
        (tiff_of(tiff_tags(0, 64)), "a size of 0 x 64"),
        (tiff_of(tiff_tags(64, 64, t256=(3, [64, 64]))), "a size of 0 x 64"),
        (tiff_of(tiff_tags(64, 64, t277=(3, [9]))), "9 samples per pixel"),
        (tiff_of(tiff_tags(64, 64, t258=(3, [8] * 9), t273=(4, [16]))), "9 values in tag 258"),
        (tiff_of(tiff_tags(64, 64, t320=(3, [8] * 769), t273=(4, [16]))), "769 values in tag 320"),
        (tiff_tiles(1100, 1, pixels=64), "1100 strips or tiles for 64 x 64"),
        (tiff_tiles(10, 0), "neither strips nor tiles"),
        (tiff_of(tiff_tags(1, 70_000, t273=(4, [16] * 70_000), t278=(4, [1]))), "can have 65536"),
        (overlapping(300, 1_000_000), "strips or tiles of 300000000 bytes"),
        (tiff_jpeg((640, 480), jpeg_of_scans(Image.new("RGB", (640, 480)), 21)), "21 JPEG scans"),
        (b"II*\0\x08\0\0\0", "no directory"),
        (b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 1 << 40), "no directory"),
    ],
)
def test_impossible_headers_are_refused(data, what):
    with pytest.raises(RequestError, match=what) as caught:
        tiff.read(data)
    assert caught.value.reason is Reason.UNDECODABLE


def test_only_the_first_directory_is_read():
    """Other directories, text and profiles that it points to are ignored."""
    tags = tiff_tags(64, 64, t273=(4, [16]), t278=(4, [64]), t279=(4, [4096]))
    there = 16 + 4096  # its own place
    data = tiff_of(
        tags | {330: (4, [there] * 1000), 34665: (4, [there]), 34853: (4, [there]), 700: (1, [60] * 5000)},
        tail=PIXELS.tobytes(),
        following=there,
    )
    header = tiff.read(data)
    assert set(header.tags) == set(tags)
    assert np.array_equal(decode(data)[:, :, 0], PIXELS)


def test_many_tags_that_share_bytes_are_read_quickly():
    data = tiff_same_data(4000, 1_000_000)
    assert len(tiff.read(data).without_metadata()) < len(data) + 1000
    assert decode(data).shape == (64, 64, 3)


@pytest.mark.parametrize("length", [4000, 5000])
def test_a_file_that_is_cut_off_is_refused(length):
    """The directory comes first, and the pixels are incomplete."""
    tags = tiff_tags(64, 64, t273=(4, [1000]), t278=(4, [64]), t279=(4, [4096]))
    data = tiff_of(tags) + bytes(6000)
    assert decode(data).shape == (64, 64, 3)
    with pytest.raises(RequestError) as caught:
        decode(data[:length])
    assert caught.value.reason is Reason.UNDECODABLE


def test_the_orientation_in_a_separate_exif_directory_is_ignored():
    """The orientation is read from the first directory only."""
    tags = tiff_tags(64, 64, t273=(4, [16]), t278=(4, [64]), t279=(4, [4096]), t34665=(4, [16 + 4096 + 8]))
    assert tiff.read(tiff_of(tags, tail=bytes(4096) + exif_of_entries(3, 6))).orientation == 1


def test_the_orientation_in_xmp_is_ignored():
    xmp = b"<x:xmpmeta><rdf:Description tiff:Orientation='6'/></x:xmpmeta>"
    tags = tiff_tags(64, 64, t273=(4, [16]), t278=(4, [64]), t279=(4, [4096]), t700=(1, list(xmp)))
    assert tiff.read(tiff_of(tags, tail=bytes(4096))).orientation == 1
