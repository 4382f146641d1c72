"""Where pictures wait for their run: rows of one buffer, so that a batch of neighbours is there without a copy.

Called by the batcher on worker threads.
"""

import threading
from collections.abc import Callable
from heapq import heappop, heappush

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.uint8]


class ImageBuffer:
    """Picture-sized rows. The first free one is taken: neighbours come together, and few rows stay in the cache.

    Args:
        count: how many pictures have a place at once.
        spare: rows after the last place, so that a batch may be padded with whatever lies behind it.
        shape: [H, W, 3] of a picture.
        pin: told the buffer once, to lock its pages for the GPU's copy engine.
    """

    def __init__(
        self, count: int, spare: int, shape: tuple[int, int, int], pin: Callable[[Rows], None] = lambda _: None
    ) -> None:
        self.rows: Rows = np.zeros((count + spare, *shape), np.uint8)
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
