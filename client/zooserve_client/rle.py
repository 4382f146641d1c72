"""Decodes COCO's compressed run lengths, with numpy only. Called by `results`.

The format is that of pycocotools (`rleFrString` in `maskApi.c`): runs in column-major order, alternately of 0 and 1,
beginning with 0. From the fourth on, each is the difference to the run two before it. A number consists of groups of 5
bits, lowest first, each plus 48 as a character. Bit 5 means that more groups follow; bit 4 of the last is the sign.
"""

import numpy as np
import numpy.typing as npt


def decode(counts: str, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Decode compressed run lengths to a mask, bool [height, width].

    Raises:
        ValueError: they are invalid, or of another size.
    """
    groups = np.frombuffer(counts.encode("latin-1"), np.uint8).astype(np.int64) - 48
    last = groups & 32 == 0
    if groups.size == 0 or not last[-1] or groups.min() < 0 or groups.max() > 63:
        raise ValueError(f"{counts[:40]!r} are not compressed run lengths")
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 12:
        raise ValueError(f"a run of {counts[:40]!r} has more than 60 bits")
    shifts = 5 * (np.arange(groups.size) - np.repeat(starts, lengths))
    runs = np.add.reduceat((groups & 31) << shifts, starts)
    runs -= np.where(groups[ends] & 16, 1 << (5 * lengths), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    if runs.min() < 0 or runs.max() > height * width or runs.sum() != height * width:
        raise ValueError(f"run lengths that cover {runs.sum()} pixels, expected {height} x {width}")
    ones = np.arange(runs.size) % 2 == 1
    return np.repeat(ones, runs).reshape(width, height).T
