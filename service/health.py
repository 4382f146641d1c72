"""Live, ready, about to stop: what the server says of itself, over HTTP (`http.ops`) and over gRPC (`grpc.health`)."""

import asyncio
import logging
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import cast

from service.runtime import Runtime

logger = logging.getLogger(__name__)


class Drain:
    """Stopping without losing a request: SIGTERM first takes readiness away, and only then ends the server.

    For `ZOOSERVE_DRAIN_S` seconds every request is still answered. Load balancers see that the server is not ready, and
    HTTP closes each connection behind its answer, so that none is cut between two requests.

    Attributes:
        on: from SIGTERM on.
    """

    def __init__(self, seconds: float) -> None:
        self.on = False
        self._seconds = seconds

    def install(self) -> None:
        """Handle SIGTERM before the server's own handler does. Other threads than the main one get no signals."""
        if threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()
        stop = signal.getsignal(signal.SIGTERM)
        if not callable(stop):
            return
        stop = cast(Callable[[int, FrameType | None], object], stop)

        def begin(number: int, frame: FrameType | None) -> None:
            if self.on:  # a second signal stops the server at once
                stop(number, frame)
                return
            self.on = True
            loop.call_soon_threadsafe(self._wait, lambda: stop(number, frame))

        signal.signal(signal.SIGTERM, begin)

    def _wait(self, stop: Callable[[], object]) -> None:
        logger.info("told to stop: not ready any more, answering for another %g s", self._seconds)
        asyncio.get_running_loop().call_later(self._seconds, stop)


class Health:
    """Of one server process.

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
        """Whether every model has passed every check, and the server is not about to stop."""
        return self._repository.ready and not self.problem()

    def stuck(self) -> str:
        """Why only a restart helps: a run has not ended, or the device is lost. Empty: the process makes progress."""
        longest = self._workers.longest()
        if 0 < self._stuck_s < longest:
            return f"one run has not ended for {longest:.0f} s"
        return self._repository.broken

    def problem(self) -> str:
        """Why the server as a whole is not ready, whatever its models are. Empty: it depends on the models alone."""
        if self.drain.on:
            return "The server is about to stop."
        return self._repository.broken or self._repository.problem
