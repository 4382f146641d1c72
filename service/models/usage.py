"""Who uses a loaded model, and how often. Read and changed on the event loop only."""

from math import exp, inf
from time import perf_counter

_RECENT_S = 300.0  # uses that long ago count by 1/e


class Usage:
    """The use of one loaded model.

    Attributes:
        holds: requests under way; the model stays while there are any.
        last: when it was used last, as `time.perf_counter()`; -inf: never.
        since: when it was loaded.
        closing: whether it is about to be unloaded, so that no further request may use it.
    """

    closing = False

    __slots__ = ("_at", "_uses", "holds", "last", "since")

    def __init__(self) -> None:
        self.holds = 0
        self.last = -inf
        self.since = self._at = perf_counter()
        self._uses = 0.0

    def begin(self) -> None:
        """Count a request, which holds the model until `end`."""
        self._uses = self.recent(now := perf_counter()) + 1
        self.last = self._at = now
        self.holds += 1

    def end(self) -> None:
        """Let the model go."""
        self.holds -= 1

    async def close(self) -> bool:
        """Say whether it may be unloaded now: whether no request holds it."""
        return not self.holds

    def recent(self, now: float) -> float:
        """Return how often it was used lately: each use counts less the longer it is ago."""
        return self._uses * exp((self._at - now) / _RECENT_S)

    def idle(self, now: float) -> float:
        """Return seconds since it was used or loaded last; 0 while a request holds it."""
        return 0.0 if self.holds else now - max(self.last, self.since)
