"""TensorFlow's SAME padding."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from export.padding import SameConv2d, same_padding


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "dilation", "expected"),
    [
        (224, 3, 2, 1, (0, 1)),  # the odd pixel comes after
        (225, 3, 2, 1, (1, 1)),
        (112, 5, 2, 1, (1, 2)),
        (33, 3, 1, 4, (4, 4)),
        (7, 1, 2, 1, (0, 0)),
        (4, 1, 1, 1, (0, 0)),
    ],
)
def test_known_paddings(side, kernel, stride, dilation, expected):
    assert same_padding(side, kernel, stride, dilation) == expected


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_the_output_has_a_pixel_per_stride(size, kernel, stride, dilation):
    convolution = SameConv2d(1, 1, kernel, stride=stride, dilation=dilation)
    height, width = (-(-side // step) for side, step in zip(size, stride, strict=True))
    assert convolution(torch.zeros(1, 1, *size)).shape == (1, 1, height, width)
