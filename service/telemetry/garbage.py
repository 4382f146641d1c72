"""Python's garbage collector: kept from what is loaded, and its pauses measured. `runtime` and `/metrics` use it."""

import gc
from time import perf_counter


class Pauses:
    """The collector's pauses since the models were loaded, in seconds.

    The callback only stores numbers: it runs inside the code that allocated last, which may hold a lock of the metrics.

    Attributes:
        longest: of all collections.
        count: of collections.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        self.count = 0
        self._start = 0.0

    def freeze(self) -> None:
        """Exclude what is loaded from collections (one over all of it took 601 ms), and measure from now on."""
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
