"""How many calls may be open, and for how long one may wait for a message of its client. `inference` and `health` ask.

gRPC's own limit counts all calls alike: whoever holds them without saying anything would keep out health checks.
"""

import asyncio
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
        self._taken = 0
        self._waiting: dict[Place, None] = {}  # in the order in which they began to wait

    def place(self) -> "Place":
        """A context that holds a place; raises `RequestError` (`queue_full`) at its start where there is none."""
        return Place(self)

    def _take(self) -> None:
        if self._taken >= self._count:
            oldest = next(iter(self._waiting), None)
            if oldest is None:
                raise RequestError(
                    Reason.QUEUE_FULL, f"{self._taken} calls are open. Try again shortly.", retry_after=1
                )
            oldest.give_up()
        self._taken += 1


class Place:
    """One call's place."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._limit: asyncio.Timeout | None = None
        self._given_up = self._held = False

    def __enter__(self) -> "Place":
        self._places._take()
        self._held = True
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.release()

    def release(self) -> None:
        """Give the place back, before its context ends where the call goes on without it."""
        self._places._taken -= self._held
        self._held = False

    def give_up(self) -> None:
        """End the wait for a message."""
        self._given_up = True
        self._places._waiting.pop(self, None)
        if self._limit is not None:
            self._limit.reschedule(0)

    async def message(self, context: Any, seconds: float) -> bytes | None:
        """Wait for the client's next message; None: it sends no more.

        Raises:
            RequestError: `deadline`: it did not come in so many seconds; `queue_full`: another call needs the place.
        """
        waiting = self._places._waiting
        try:
            async with asyncio.timeout(seconds) as self._limit:
                waiting[self] = None
                message = await context.read()
        except TimeoutError:
            if self._given_up:
                raise RequestError(
                    Reason.QUEUE_FULL, "This call waited longest when others needed its place.", retry_after=1
                ) from None
            raise RequestError(
                Reason.DEADLINE, f"No message came within {seconds:g} s. Open a call when there is one to send."
            ) from None
        finally:
            waiting.pop(self, None)
            self._limit = None
        return None if message is grpc.aio.EOF else message
