"""Run lengths: what pycocotools writes is read as it was, and what is broken is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco
from zooserve_client import rle


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_every_mask_is_decoded(mask):
    packed = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert (rle.decode(packed["counts"].decode(), *packed["size"]) == mask).all()


@pytest.mark.parametrize("side", [1, 1000, 5000])
def test_long_runs_of_large_masks_are_decoded(side):
    mask = np.zeros((side, side), np.uint8, order="F")
    mask[side // 3 : side // 2 + 1, side // 4 :] = 1
    counts = coco.encode(mask)["counts"].decode()
    assert (rle.decode(counts, side, side) == mask.astype(bool)).all()


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ("", "not compressed run lengths"),
        ("P", "not compressed run lengths"),  # says that more follows
        ("!", "not compressed run lengths"),
        ("ü", "not compressed run lengths"),
        ("o" * 20 + "0", "60 bits"),
        ("5", "cover 5 pixels, expected 3 x 4"),
        ("L<", "cover"),
    ],
)
def test_invalid_run_lengths_are_refused(counts, message):
    with pytest.raises(ValueError, match=message):
        rle.decode(counts, 3, 4)


@given(st.text(st.characters(max_codepoint=255), max_size=30))
def test_any_text_is_decoded_or_a_value_error(counts):
    try:
        mask = rle.decode(counts, 3, 4)
    except ValueError:
        return
    assert (mask.shape, mask.dtype) == ((3, 4), np.bool_)
