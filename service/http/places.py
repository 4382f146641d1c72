"""How many connections may be open, and which one is closed for a new one. `http.connections` asks."""

import asyncio
from collections import OrderedDict
from typing import Protocol

_GRACE_S = 0.02  # seconds in which what a new connection sent already is read


class Holder(Protocol):
    """A connection that holds a place."""

    def make_room(self) -> None:
        """Close; its place is another's already."""


class Places:
    """A number of places. When all are taken, whoever has kept the server waiting longest makes room.

    A connection keeps the server waiting while its client has to do something: to send a request, or the rest of one,
    or to take an answer. One whose request has arrived and is not answered yet never has to go. All is O(1).

    Room is made a moment later, so that of many connections that are accepted at once none has to go before its
    request was read. Until then there are more, but never more than `limit + spare`.
    """

    def __init__(self, limit: int, spare: int) -> None:
        self._waiting: OrderedDict[Holder, None] = OrderedDict()  # longest first
        self._limit, self._spare = limit, spare
        self._taken = 0
        self._later: asyncio.TimerHandle | None = None

    def take(self, holder: Holder) -> bool:
        """Take a place for a new connection, for which another makes room if need be. False: all others have work."""
        over = self._taken - self._limit
        if over >= 0 and len(self._waiting) <= over:
            return False
        if over >= self._spare:
            self._close_one()
        elif over >= 0 and self._later is None:
            self._later = asyncio.get_running_loop().call_later(_GRACE_S, self._make_room)
        self._taken += 1
        self._waiting[holder] = None
        return True

    def waits(self, holder: Holder) -> None:
        """Note that the server waits for a connection's client from now on."""
        self._waiting[holder] = None
        self._waiting.move_to_end(holder)

    def works(self, holder: Holder) -> None:
        """Note that the server has a connection's request to answer."""
        self._waiting.pop(holder, None)

    def leave(self, holder: Holder) -> None:
        """Give a place back."""
        self._waiting.pop(holder, None)
        self._taken -= 1

    def _make_room(self) -> None:
        self._later = None
        while self._taken > self._limit and self._waiting:
            self._close_one()

    def _close_one(self) -> None:
        self._taken -= 1
        self._waiting.popitem(last=False)[0].make_room()
