"""What all clients share: the bytes of bodies that the server holds, and places for connections or calls.

HTTP counts connections and bodies of requests (`http.server.connections`), gRPC calls and messages (`grpc.calls`).
"""

import asyncio
from collections import OrderedDict
from typing import Generic, Protocol, TypeVar

_GRACE_S = 0.02  # seconds in which what a new connection has sent already is read


class Bodies:
    """The bodies of all requests of a process that are being read, or are read and not answered yet.

    A body counts as it arrives, not as it is announced: a client that announces much and sends nothing takes no room.
    Whoever reads a body counts `held` up and down.

    Attributes:
        limit: bytes.
        held: bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    def room_for(self, length: int) -> bool:
        """Whether a body of so many bytes may begin. The largest that is served may, where there is no other."""
        return not self.held or self.held + length <= self.limit


class Holder(Protocol):
    """A connection or a call that holds a place."""

    def make_room(self) -> None:
        """End; the place is another's already."""


HolderT = TypeVar("HolderT", bound=Holder)


class Places(Generic[HolderT]):
    """A number of places. When all are taken, the holder that has kept the server waiting longest makes room.

    A holder keeps the server waiting while its client has to do something: to send a request, or the rest of one, or to
    take an answer. One whose request has arrived and is not answered yet never has to go. All is O(1).

    Room is made a moment later, so that of many connections that are accepted at once none has to go before its
    request was read. Until then there are more, but never more than `limit + spare`.
    """

    def __init__(self, limit: int, spare: int) -> None:
        self.limit = limit
        self._waiting: OrderedDict[HolderT, None] = OrderedDict()  # longest first
        self._spare = spare
        self._taken = 0
        self._later: asyncio.TimerHandle | None = None

    def take(self, holder: HolderT) -> bool:
        """Take a place for a new holder, which waits; another makes room if need be. False: all others have work."""
        over = self._taken - self.limit
        if over >= 0 and len(self._waiting) <= over:
            return False
        if over >= self._spare:
            self._end_one()
        elif over >= 0 and self._later is None:
            self._later = asyncio.get_running_loop().call_later(_GRACE_S, self._make_room)
        self._taken += 1
        self._waiting[holder] = None
        return True

    def waits(self, holder: HolderT) -> None:
        """Note that the server waits for a holder's client from now on."""
        self._waiting[holder] = None
        self._waiting.move_to_end(holder)

    def works(self, holder: HolderT) -> None:
        """Note that the server has a holder's request to answer."""
        self._waiting.pop(holder, None)

    def leave(self, holder: HolderT) -> None:
        """Give a place back."""
        self._waiting.pop(holder, None)
        self._taken -= 1

    def _make_room(self) -> None:
        self._later = None
        while self._taken > self.limit and self._waiting:
            self._end_one()

    def _end_one(self) -> None:
        self._taken -= 1
        self._waiting.popitem(last=False)[0].make_room()
