"""Python's garbage collector, kept out of the way of requests and watched. Called by `runtime` and by `/metrics`."""

import gc
from time import perf_counter


class Pauses:
    """How long the collector stopped this process since its models were loaded, in seconds.

    It only takes notes: it runs inside whatever allocated last, which may hold a lock of the metrics.

    Attributes:
        longest: of all collections.
        count: of collections.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        self.count = 0
        self._start = 0.0

    def calm(self) -> None:
        """Keep what was loaded out of the collector's way (a full collection over it once took 601 ms), and watch."""
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
