"""Run-length encoded BMPs, which OpenCV decodes, and others, which Pillow does."""

import io

import numpy as np
import pytest
from PIL import Image

from service.errors import Reason, RequestError
from service.vision.decode import decode
from tests.service.vision.attack_images import bmp_rle

WIDTH, HEIGHT = 37, 11


def runs(four: bool, moves: bool) -> bytes:
    """Rows of runs and of literal pixels; with `moves` also codes that skip pixels."""
    rng = np.random.default_rng(3)
    data = b""
    for _ in range(HEIGHT):
        x = 0
        while x < WIDTH:
            length = min(int(rng.integers(1, 10)), WIDTH - x)
            if length >= 3 and rng.random() < 0.5:
                size = (length + 1) // 2 if four else length
                data += bytes([0, length]) + rng.bytes(size) + b"\0" * (size & 1)
            else:
                data += bytes([length]) + rng.bytes(1)
            x += length
            if moves and x < WIDTH - 5 and rng.random() < 0.2:
                data += b"\0\2\3\0"
                x += 3
        data += b"\0\0"
    return data + b"\0\1"


@pytest.mark.parametrize(("four", "moves"), [(False, False), (False, True), (True, False)])
def test_pixels_equal_pillows(four, moves):
    data = bmp_rle(WIDTH, HEIGHT, runs(four, moves), four=four)
    assert np.array_equal(decode(data), Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize(("used", "offset"), [(0, None), (0, 54), (0, 0), (9, None), (9, 54), (255, None), (256, 54)])
def test_palettes_of_any_length(used, offset):
    """As in Pillow: indices beyond the palette are black, and a wrong offset of the pixels is corrected."""
    data = bytearray(bmp_rle(WIDTH, HEIGHT, runs(False, False)))
    data[46:50] = used.to_bytes(4, "little")
    if offset is not None:
        data[10:14] = offset.to_bytes(4, "little")
    if used == 9:
        data = data[:54] + data[54 : 54 + 36] + data[54 + 1024 :]
        data[10:14] = (54 + 36 if offset is None else offset).to_bytes(4, "little")
    assert np.array_equal(decode(bytes(data)), Image.open(io.BytesIO(data)).convert("RGB"))


def test_a_file_that_is_cut_off_is_refused():
    data = bmp_rle(WIDTH, HEIGHT, runs(False, False))
    for length in range(60, len(data) - 4, 7):
        with pytest.raises(RequestError) as caught:
            decode(data[:length])
        assert caught.value.reason is Reason.UNDECODABLE


def test_images_of_too_many_pixels_are_refused():
    with pytest.raises(RequestError, match="60000 x 60000") as caught:
        decode(bmp_rle(60_000, 60_000, b"\0\1"))
    assert caught.value.reason is Reason.TOO_LARGE
