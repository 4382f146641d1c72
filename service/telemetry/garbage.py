"""Excludes loaded models from garbage collections, and measures their pauses. `runtime` and `/metrics` use it."""

import gc
from time import perf_counter


class Pauses:
    """The garbage collector's pauses since the models were loaded.

    The callback only stores numbers: it interrupts any code that allocates, which may hold a lock of the metrics.

    Attributes:
        longest: pause, in seconds.
        count: number of collections.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        self.count = 0
        self._start = 0.0

    def freeze(self) -> None:
        """Exclude all current objects from collections (one over all of them took 601 ms), and start measuring."""
        if self._note in gc.callbacks:
            gc.callbacks.remove(self._note)
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 50, 100)
        gc.callbacks.append(self._note)

    def _note(self, phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            self._start = perf_counter()
        else:
            self.longest = max(self.longest, perf_counter() - self._start)
            self.count += 1
