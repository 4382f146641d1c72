"""The loading of one model on its own thread, with a time limit, because a graph may compute for ever.

The loader starts it. Work that ONNX Runtime cannot stop continues on its thread after the limit.
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
    """A model took longer to load than allowed."""


class Loading(Generic[T]):
    """A running or ended loading.

    Args:
        name: of the model, for the log.
        work: called on its own thread; should end when its `Stop` asks.
        finish: called once, on that thread or another, with what `work` returned or raised, or a `LoadError`.
        limit: seconds after which the loading ends with a `LoadError`; 0: none.
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
        """Whether the loading has ended: with a result, with an error, or by `drop`."""
        return self._over.is_set()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the loading has ended, at most for `seconds`. Returns whether it has."""
        return self._over.wait(seconds)

    def drop(self) -> None:
        """End the loading without a result, unless it has ended. What was loaded may still answer queued requests."""
        if self._end(None):
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
            self._stop.ask()  # only now: otherwise the outcome would be the error of the stopped work

    def _end(self, outcome: T | BaseException | None) -> bool:
        """Return whether this call ended the loading. `finish` runs under the lock, so never after `drop` returned."""
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
