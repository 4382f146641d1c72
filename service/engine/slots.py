"""Where pictures wait for their run: rows of one buffer, so that a batch of neighbours is there without a copy.

Called by the batcher on worker threads.
"""

import threading
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.uint8]


class Slots:
    """A ring of picture-sized rows.

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
        self._taken = [False] * count
        self._next = 0
        self._lock = threading.Lock()

    def take(self) -> int | None:
        """Take the next free row, in the order of the ring; None where all are taken."""
        count = len(self._taken)
        with self._lock:
            for step in range(count):
                row = (self._next + step) % count
                if not self._taken[row]:
                    self._taken[row] = True
                    self._next = (row + 1) % count
                    return row
        return None

    def free(self, row: int) -> None:
        """Give a row back."""
        self._taken[row] = False
