"""How many calls may be open, and for how long one may wait for a message of its client. `inference` and `health` ask.

gRPC's own limit counts all calls alike: whoever holds them without saying anything would keep out health checks.
"""

import asyncio
from time import perf_counter
from types import TracebackType
from typing import Any

import grpc

from service.errors import Reason, RequestError


class Places:
    """Places for calls of one kind.

    Where all are taken, the call that has waited longest for a message gives its place up: calls that are at work are
    not ended for others, and calls that only wait keep nobody out.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self.taken = 0
        self.waiting: dict[Place, float] = {}  # until when, in the order in which they began to wait

    def place(self) -> "Place":
        """A context that holds a place; raises `RequestError` (`queue_full`) at its start where there is none."""
        return Place(self)

    def take(self) -> None:
        """Take a place, or the one of the call that has waited longest."""
        if self.taken >= self._count:
            oldest = next(iter(self.waiting), None)
            if oldest is None:
                raise RequestError(Reason.QUEUE_FULL, f"{self.taken} calls are open. Try again shortly.", retry_after=1)
            detail = "This call waited longest when others needed its place."
            oldest.end(RequestError(Reason.QUEUE_FULL, detail, retry_after=1))
        self.taken += 1

    def end_late(self) -> None:
        """End the calls whose message did not come in time. Called now and then: a timer for each call costs more."""
        now = perf_counter()
        for place in [place for place, until in self.waiting.items() if until < now]:
            detail = "No message came in time. Open a call when there is one to send."
            place.end(RequestError(Reason.DEADLINE, detail))


class Place:
    """One call's place."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._held = False
        self._task: asyncio.Task[Any] | None = None
        self._ended: RequestError | None = None

    def __enter__(self) -> "Place":
        self._places.take()
        self._held = True
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.release()

    def release(self) -> None:
        """Give the place back, before its context ends where the call goes on without it."""
        self._places.taken -= self._held
        self._held = False

    def end(self, error: RequestError) -> None:
        """End the wait for a message with an error."""
        assert self._task is not None  # noqa: S101 - it waits
        self._ended = error
        del self._places.waiting[self]
        self._task.cancel()

    async def message(self, context: Any, seconds: float) -> bytes | None:
        """Wait for the client's next message, for so many seconds or a little more; None: it sends no more.

        Raises:
            RequestError: `deadline`: it did not come in time; `queue_full`: another call needs the place.
        """
        self._task = asyncio.current_task()
        self._places.waiting[self] = perf_counter() + seconds
        try:
            message = await context.read()
        except asyncio.CancelledError:
            if self._ended is None or self._task is None:
                raise
            self._task.uncancel()
            raise self._ended from None
        finally:
            self._places.waiting.pop(self, None)
        return None if message is grpc.aio.EOF else message
