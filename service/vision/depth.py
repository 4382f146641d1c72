"""From 16 bits per value to 8, where a file says that fewer than 16 are used. Called by `decode`.

Cameras and scanners store values of 10 or 12 bits in files of 16, and say so: `sBIT` in a PNG, `MaxSampleValue` in a
TIFF. Some of them leave the values as they are, 0 to 4095; others scale them to 16 bits, as PNG demands, and say so all
the same. What the values do decides.
"""

from typing import cast

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.uint16]


def eight_bits(values: Values, bits: int) -> npt.NDArray[np.uint8]:
    """The upper 8 of the bits that are used.

    Args:
        values: of any shape. All of them decide.
        bits: how many the file says are used, 1 to 16.
    """
    if values.size == 0 or int(values.max()) >> bits:
        bits = 16
    if bits < 8:
        return cast("npt.NDArray[np.uint8]", (values * np.uint16(255) // np.uint16((1 << bits) - 1)).astype(np.uint8))
    return (values >> np.uint16(bits - 8)).astype(np.uint8)
