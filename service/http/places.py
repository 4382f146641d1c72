"""How many connections may be open, and which one is closed for a new one. `http.connections` asks."""

from collections import OrderedDict
from typing import Protocol


class Holder(Protocol):
    """A connection that holds a place."""

    def make_room(self) -> None:
        """Close; its place is another's already."""


class Places:
    """A number of places. When all are taken, whoever has kept the server waiting longest makes room.

    A connection keeps the server waiting while its client has to do something: to send a request, or the rest of one,
    or to take an answer. One whose request has arrived and is not answered yet never has to go. All is O(1).

    Attributes:
        waiting: those connections, longest first.
    """

    def __init__(self, limit: int) -> None:
        self.waiting: OrderedDict[Holder, None] = OrderedDict()
        self._limit = limit
        self._taken = 0

    def take(self, holder: Holder) -> bool:
        """Take a place for a new connection, another's if need be. False: all others have work."""
        if self._taken < self._limit:
            self._taken += 1
        elif self.waiting:
            self.waiting.popitem(last=False)[0].make_room()
        else:
            return False
        self.waiting[holder] = None
        return True

    def waits(self, holder: Holder) -> None:
        """Note that the server waits for a connection's client from now on."""
        self.waiting[holder] = None
        self.waiting.move_to_end(holder)

    def works(self, holder: Holder) -> None:
        """Note that the server has a connection's request to answer."""
        self.waiting.pop(holder, None)

    def leave(self, holder: Holder) -> None:
        """Give a place back."""
        self.waiting.pop(holder, None)
        self._taken -= 1
