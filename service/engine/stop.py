"""How ONNX Runtime is told to end its work: a session registers how it is stopped, the loader asks.

Not everything can be stopped: a run ends before its next node, and the making of a session before its next step.
"""

import threading
from collections.abc import Callable
from functools import partial

import onnxruntime as ort


class Stop:
    """A request to end, for everything that registers here before it or after."""

    def __init__(self) -> None:
        self.asked = False
        self._lock = threading.Lock()
        self._ends: list[Callable[[], None]] = []

    def ask(self) -> None:
        """Ask everything to end. From any thread."""
        with self._lock:
            self.asked = True
            ends, self._ends = self._ends, []
        for end in ends:
            end()

    def watch_session(self, options: ort.SessionOptions) -> None:
        """Let `ask` end the making of a session with these options."""
        self._register(partial(options.set_load_cancellation_flag, True))

    def watch_runs(self, options: ort.RunOptions) -> None:
        """Let `ask` end every run with these options."""
        self._register(partial(setattr, options, "terminate", True))

    def _register(self, end: Callable[[], None]) -> None:
        with self._lock:
            if not self.asked:
                self._ends.append(end)
                return
        end()
