"""Stopping without losing a request: SIGTERM first takes readiness away, and only then ends the server.

For `ZOOSERVE_DRAIN_S` seconds every request is still answered, with `Connection: close`, so that load balancers and
clients go elsewhere and no kept connection is cut between two requests. `http.app` puts it around everything.
"""

import asyncio
import logging
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from starlette.types import Message, Send

logger = logging.getLogger(__name__)


class Drain:
    """Whether the server is about to stop.

    Attributes:
        on: from SIGTERM on.
    """

    def __init__(self, seconds: float) -> None:
        self.on = False
        self._seconds = seconds

    def install(self) -> None:
        """Stand before uvicorn's handler of SIGTERM, in the main thread; elsewhere nobody gets signals."""
        if threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()
        stop: Any = signal.getsignal(signal.SIGTERM)
        if not callable(stop):
            return

        def begin(number: int, frame: FrameType | None) -> None:
            if self.on:  # the second one means it
                stop(number, frame)
                return
            self.on = True
            loop.call_soon_threadsafe(self._wait, lambda: stop(number, frame))

        signal.signal(signal.SIGTERM, begin)

    def _wait(self, stop: Callable[[], None]) -> None:
        logger.info("told to stop: not ready any more, answering for another %g s", self._seconds)
        asyncio.get_running_loop().call_later(self._seconds, stop)


def closing(send: Send) -> Send:
    """Wrap an ASGI `send` so that the answer closes its connection."""

    async def last(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"connection", b"close")]
        await send(message)

    return last
