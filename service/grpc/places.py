"""How many calls may be open, and for how long one may wait for a message of its client. `calls` asks.

gRPC's own limit counts all calls alike: a client that holds calls and sends nothing would keep out health checks.
"""

import asyncio
from time import perf_counter
from types import TracebackType
from typing import Self

import grpc

from service import limits
from service.errors import Reason, RequestError


class Places(limits.Places["Place"]):
    """Places for calls of one kind.

    When all are taken, the call that has waited longest for a message gives its place up. Calls that are at work are
    not ended for others, and calls that only wait keep no other out.
    """

    def __init__(self, count: int) -> None:
        super().__init__(count, 0)

    def end_late(self) -> None:
        """End the calls whose message did not come in time. Called now and then: a timer for each call costs more."""
        now = perf_counter()
        detail = "No message came in time. Open a call when there is one to send."
        for place in [place for place in self._waiting if place.until < now]:
            place.end(RequestError(Reason.DEADLINE, detail))


class Place:
    """One call's place; a context that holds it.

    Attributes:
        until: when the message for which it waits must have come, as `time.perf_counter()`.
    """

    def __init__(self, places: Places) -> None:
        self.until = 0.0
        self._places = places
        self._held = False
        self._task: asyncio.Task[object] | None = None
        self._ended: RequestError | None = None

    def __enter__(self) -> Self:
        if not self._places.take(self):
            detail = f"{self._places.limit} calls are open. Try again shortly."
            raise RequestError(Reason.QUEUE_FULL, detail, retry_after=1)
        self._held = True
        self._places.works(self)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.release()

    def release(self) -> None:
        """Give the place back, before its context ends where the call goes on without it."""
        if self._held:
            self._held = False
            self._places.leave(self)

    def make_room(self) -> None:
        """End the wait for a message: the place is another call's."""
        self._held = False
        detail = "This call waited longest when others needed its place."
        self.end(RequestError(Reason.QUEUE_FULL, detail, retry_after=1))

    def end(self, error: RequestError) -> None:
        """End the wait for a message with an error."""
        assert self._task is not None  # noqa: S101 - it waits
        self._ended = error
        self._places.works(self)
        self._task.cancel()

    async def message(self, context: grpc.aio.ServicerContext, seconds: float) -> bytes | None:
        """Wait for the client's next message, for so many seconds or a little more; None: it sends no more.

        Raises:
            RequestError: `deadline`: it did not come in time; `queue_full`: another call needs the place.
        """
        self._task = asyncio.current_task()
        self.until = perf_counter() + seconds
        self._places.waits(self)
        try:
            message = await context.read()
        except asyncio.CancelledError:
            if self._ended is None or self._task is None:
                raise
            self._task.uncancel()
            raise self._ended from None
        finally:
            self._places.works(self)
        return None if message is grpc.aio.EOF else message
