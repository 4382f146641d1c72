"""The arrays that all layers speak of, and arrays of texts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Image = npt.NDArray[np.uint8]
"""Pixels, uint8 [H, W, 3] RGB; or a batch of them, uint8 [N, H, W, 3]."""
Tensors = Mapping[str, Array]
"""A graph's inputs or outputs by name. Texts are object arrays of `str`."""


def objects(elements: Sequence[bytes | str], shape: Sequence[int]) -> Array:
    """Make an object array of a shape, row by row. NumPy alone would make strings of one length."""
    array: Array = np.empty(len(elements), object)
    array[:] = elements
    return array.reshape(shape)
