"""The server's liveness, readiness and shutdown, reported over HTTP (`http.ops`) and gRPC (`grpc.health`)."""

import asyncio
import logging
import signal
import threading
from collections.abc import Callable
from time import monotonic
from types import FrameType
from typing import cast

from service.runtime import Runtime

logger = logging.getLogger(__name__)
_SAME_S = 1.0  # systemd sends SIGTERM to every process, and so does, then, the one that started this one


class Drain:
    """Stops the server without losing requests: after SIGTERM it first reports not ready, and ends later.

    For `ZOOSERVE_DRAIN_S` seconds it still answers every request. Meanwhile load balancers see that it is not ready,
    and HTTP closes each connection after its answer, so that no client sends another request on it.

    Attributes:
        on: True after SIGTERM.
    """

    def __init__(self, seconds: float) -> None:
        self.on = False
        self._seconds, self._since = seconds, 0.0

    def install(self) -> None:
        """Handle SIGTERM before the server's own handler. Does nothing outside the main thread, which gets signals."""
        if threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()
        stop = signal.getsignal(signal.SIGTERM)
        if not callable(stop):
            return
        stop = cast(Callable[[int, FrameType | None], object], stop)

        def begin(number: int, frame: FrameType | None) -> None:
            if self.on:
                if monotonic() - self._since > _SAME_S:  # a second signal stops the server at once
                    stop(number, frame)
                return
            self.on, self._since = True, monotonic()
            loop.call_soon_threadsafe(self._wait, lambda: stop(number, frame))

        signal.signal(signal.SIGTERM, begin)

    def _wait(self, stop: Callable[[], object]) -> None:
        logger.info("SIGTERM: not ready any more, answering for another %g s", self._seconds)
        asyncio.get_running_loop().call_later(self._seconds, stop)


class Health:
    """The health of one server process.

    Attributes:
        drain: whether the server is about to stop.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.drain = Drain(runtime.settings.drain_s)
        self._repository = runtime.repository
        self._workers = runtime.workers
        self._stuck_s = runtime.settings.stuck_s

    @property
    def live(self) -> bool:
        """Whether the process makes progress; see `stuck`."""
        return not self.stuck()

    @property
    def ready(self) -> bool:
        """Whether every model of the start has passed all checks, and the server is not about to stop."""
        return self._repository.ready and not self.problem()

    def stuck(self) -> str:
        """Return why only a restart helps: a run does not end, or the device is lost. Empty: no restart is needed."""
        longest = self._workers.longest()
        if 0 < self._stuck_s < longest:
            return f"one run has not ended for {longest:.0f} s"
        if 0 < self._stuck_s < self._repository.silent():
            return f"the engine has done nothing for {self._repository.silent():.0f} s"
        return self._repository.broken

    def problem(self) -> str:
        """Return why the server is not ready for other reasons than a model's state. Empty: there is none."""
        if self.drain.on:
            return "The server is about to stop."
        return self._repository.broken or self._repository.problem
