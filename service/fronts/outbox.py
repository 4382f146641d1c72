"""Messages that wait until the other side has room for them: whoever sends one waits for nobody.

A socket holds a few messages of some kilobytes, and the answers of a batch are sent faster than a busy process reads.
"""

import asyncio
import os
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from time import perf_counter

from service.fronts.channel import Buffer, Channel, Kind, packed


class Outbox:
    """What is sent over a channel. `send` and `send_body` may be called by any thread, all else on the event loop.

    Args:
        channel: to the other side.
        loop: on which waiting messages are sent.
    """

    def __init__(self, channel: Channel, loop: asyncio.AbstractEventLoop) -> None:
        self._channel, self._loop = channel, loop
        self._lock = threading.Lock()  # messages keep their order
        self._unsent: deque[tuple[bytes, list[int]]] = deque()  # with descriptors of our own
        self._since = 0.0  # when the first of these was to be sent, or the one before it was
        self._closed = False

    @property
    def stalled(self) -> float:
        """Seconds in which the other side has read nothing, although messages wait."""
        return perf_counter() - self._since if self._unsent else 0.0

    def send(self, message: bytes, files: Sequence[int] = ()) -> None:
        """Send a small message, whose first byte is its kind, behind those that wait.

        Raises:
            OSError: the other side is gone, or there are no descriptors left.
        """
        with self._lock:
            if self._closed:
                raise ConnectionResetError("the connection has ended")
            if not self._unsent:
                try:
                    self._channel.send(message, files)
                except BlockingIOError:
                    self._since = perf_counter()
                else:
                    return
            self._unsent.append((message, _copied(files)))
            if len(self._unsent) == 1:
                with suppress(RuntimeError):  # the loop is closed: the process ends
                    self._loop.call_soon_threadsafe(self._begin)

    def send_body(self, kind: Kind, parts: Sequence[Buffer], files: Sequence[int] = ()) -> None:
        """Send a message of any size, whose body is put together from parts; raises as `send` does."""
        with packed(kind, parts) as (message, own):
            self.send(message, [*own, *files])

    def close(self) -> None:
        """Send nothing any more. Before the channel is closed."""
        with self._lock:
            self._closed = True
            self._loop.remove_writer(self._channel)
            while self._unsent:
                _close(self._unsent.popleft()[1])

    def _begin(self) -> None:
        with self._lock:
            if self._unsent:
                self._loop.add_writer(self._channel, self._send_more)

    def _send_more(self) -> None:
        """Send what waits, as far as there is room."""
        with self._lock:
            while self._unsent:
                message, files = self._unsent[0]
                try:
                    self._channel.send(message, files)
                except BlockingIOError:
                    return
                except OSError:  # the other side is gone, which `receive` tells
                    break
                self._since = perf_counter()
                self._unsent.popleft()
                _close(files)
            self._loop.remove_writer(self._channel)


def _copied(files: Sequence[int]) -> list[int]:
    copies: list[int] = []
    try:
        for file in files:
            copies.append(os.dup(file))  # noqa: PERF401 - those before an error are closed
    except OSError:
        _close(copies)
        raise
    return copies


def _close(files: Sequence[int]) -> None:
    for file in files:
        os.close(file)
