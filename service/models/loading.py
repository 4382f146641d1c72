"""The loading of one model on a thread of its own, with a limit of time: a graph may compute without end.

The loader starts it. What ONNX Runtime cannot end goes on, on its thread, and is not waited for.
"""

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from service.engine.stop import Stop
from zoo.files import shown

logger = logging.getLogger(__name__)
T = TypeVar("T")


class LoadError(Exception):
    """A model that took longer to load than it may."""


class Loading(Generic[T]):
    """Work that is under way.

    Args:
        name: of the model, for the log.
        work: done on a thread of its own; it is to end when the `Stop` asks.
        finish: called once, from that thread or another, with what `work` returned or why it did not.
        limit: seconds after which it ends with a `LoadError`; 0: none.
    """

    def __init__(
        self, name: str, work: Callable[[Stop], T], finish: Callable[[T | BaseException], None], limit: float
    ) -> None:
        self._name, self._limit = name, limit
        self._finish: Callable[[T | BaseException], None] | None = finish
        self._stop = Stop()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._timer = threading.Timer(limit, self._time_out)
        self._timer.daemon = True
        if limit:
            self._timer.start()
        threading.Thread(target=self._run, args=(work,), name=f"load {name}", daemon=True).start()

    @property
    def over(self) -> bool:
        """Whether it ended: with a result, an error, or none."""
        return self._over.is_set()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it is over, or for so long; say whether it is."""
        return self._over.wait(seconds)

    def drop(self) -> None:
        """End it without a result, unless it is over."""
        self._end(None)
        self._stop.ask()

    def _run(self, work: Callable[[Stop], T]) -> None:
        try:
            outcome: T | BaseException = work(self._stop)
        except BaseException as error:
            outcome = error
        if not self._end(outcome):
            logger.info("the loading of %s has ended, long after its time", shown(self._name))

    def _time_out(self) -> None:
        error = LoadError(f"it took longer to load than ZOOSERVE_LOAD_S={self._limit:g} allows")
        if self._end(error):
            self._stop.ask()  # only now, so that this is the reason, and not how the work ended

    def _end(self, outcome: T | BaseException | None) -> bool:
        """Say whether this ended it. `finish` runs under the lock: once `drop` has returned, it does not any more."""
        with self._lock:
            finish, self._finish = self._finish, None
            if finish is None:
                return False
            self._timer.cancel()
            try:
                if outcome is not None:
                    finish(outcome)
            finally:
                self._over.set()
        return True
