"""Converts 16 bits per value to 8, where a file says that fewer than 16 are used. Called by `decode`.

Cameras and scanners store values of 10 or 12 bits in files with 16 bits per value, and note it: as `sBIT` in a PNG, as
`MaxSampleValue` in a TIFF. Some leave the values as they are, such as 0 to 4095. Others scale them to 16 bits, as PNG
requires, with the same note. The largest value shows which of the two was done.
"""

from typing import cast

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.uint16]


def eight_bits(values: Values, bits: int) -> npt.NDArray[np.uint8]:
    """Keep the upper 8 of the bits that are used; fewer than 8 are scaled to 0..255.

    Args:
        values: uint16 of any shape. If one of them needs more than `bits` bits, all 16 bits are used.
        bits: bits per value that are used, as the file says, 1 to 16.

    Returns:
        uint8 of the same shape.
    """
    if values.size == 0 or int(values.max()) >> bits:
        bits = 16
    if bits < 8:
        return cast("npt.NDArray[np.uint8]", (values * np.uint16(255) // np.uint16((1 << bits) - 1)).astype(np.uint8))
    return (values >> np.uint16(bits - 8)).astype(np.uint8)
