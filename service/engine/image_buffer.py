"""Where images wait for their run: rows of one buffer. Called by `assembly.ImageRows` on worker threads."""

import threading
from collections.abc import Callable
from heapq import heappop, heappush

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
"""Pixels, uint8 [H, W, 3] RGB; or a batch of them, uint8 [N, H, W, 3]."""


class ImageBuffer:
    """Rows for images. The first free row is taken, for two reasons.

    Images that are prepared at the same time get neighbouring rows, and neighbouring rows are a batch without a copy.
    And as few rows as possible are in use, which stay in the processor's cache.

    Args:
        count: how many images have a row at once.
        spare: rows after those, so that a batch may be padded with whatever lies behind it.
        shape: [H, W, 3] of an image.
        pin: called with the buffer once, to lock its pages for the GPU's copy engine.

    Attributes:
        rows: uint8 [count + spare, H, W, 3].
    """

    def __init__(
        self, count: int, spare: int, shape: tuple[int, int, int], pin: Callable[[Image], None] = lambda _: None
    ) -> None:
        self.rows: Image = np.zeros((count + spare, *shape), np.uint8)
        pin(self.rows)
        self._free = list(range(count))
        self._lock = threading.Lock()

    def take(self) -> int | None:
        """Take the first free row; None where all are taken."""
        with self._lock:
            return heappop(self._free) if self._free else None

    def free(self, row: int) -> None:
        """Give a row back."""
        with self._lock:
            heappush(self._free, row)
