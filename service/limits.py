"""Limits that all clients share: on the bytes of bodies and of pixels in memory, on open connections, calls and files.

HTTP limits connections and the bodies of requests (`http.server.connections`), gRPC calls and messages (`grpc.calls`).
"""

import asyncio
import os
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

from service.errors import Reason, RequestError

FOR_PROBES = 8  # connections
SPARE = 1024  # connections above the limit for a short time, when many are accepted at once
_OTHER_FILES = 256  # open files of a process other than its connections: models, libraries, the log
_GRACE_S = 0.02  # seconds in which the data that a new connection has already sent are read


def allow_files(count: int) -> None:
    """Let this process have so many files open, as far as it may: 1,024 is usual, and connections are files."""
    if os.name == "posix":
        import resource  # noqa: PLC0415 - POSIX only

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < count:
            with suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))


def files_for(connections: int, listeners: int) -> int:
    """How many files a process has open that has so many connections at each of its listeners."""
    return listeners * (connections + FOR_PROBES + min(connections, SPARE)) + _OTHER_FILES


def most_connections(wanted: int, listeners: int) -> int:
    """How many connections a process may have at each of its listeners, at most `wanted`.

    Without a file for a connection the system resets it, and no other can make room for it, not even for a probe.
    """
    if os.name != "posix":
        return wanted
    import resource  # noqa: PLC0415 - POSIX only

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or files_for(wanted, listeners) <= hard:
        return wanted
    left = (hard - min(_OTHER_FILES, hard // 4)) // listeners - FOR_PROBES
    return max(1, min(wanted, max(left // 2, left - SPARE)))


class Held:
    """What a process holds of one kind in memory.

    Attributes:
        limit: bytes.
        held: bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    def fits(self, size: int) -> bool:
        """Return whether `size` further bytes fit. If nothing else is held, all do."""
        return not self.held or self.held + size <= self.limit


class Bodies(Held):
    """The bodies of requests that are being read or answered, or the answers that clients have not taken yet.

    The bytes that have arrived count, not the declared length, so a client that only declares a large body uses up
    nothing. The code that reads bodies adds to `held` and subtracts from it.
    """


class HeldBodies:
    """The bodies of one connection's requests whose answers are not complete, in their order.

    Args:
        all_: those of all connections.
    """

    def __init__(self, all_: Bodies) -> None:
        self._all = all_
        self._sizes = deque[int]()

    def begin(self) -> None:
        """Begin with the body of the next request."""
        self._sizes.append(0)

    def add(self, size: int) -> None:
        """Count bytes of the last request's body."""
        self._sizes[-1] += size
        self._all.held += size

    def answered(self) -> None:
        """Count the first request's body no longer."""
        self._all.held -= self._sizes.popleft()

    def end(self) -> None:
        """Count none of them any longer: the connection has ended. Answers may still complete."""
        self._all.held -= sum(self._sizes)
        self._sizes = deque([0] * len(self._sizes))


class Share:
    """What one user, such as a request, holds of a kind.

    Args:
        all_: what all hold.
        what: is said of it when something does not fit.
    """

    def __init__(self, all_: Held, what: str) -> None:
        self._all, self._what, self._held = all_, what, 0

    def add(self, size: int) -> None:
        """Hold further bytes.

        Raises:
            RequestError: `queue_full`: they do not fit.
        """
        if not self._all.fits(size):
            detail = f"{self._what} of {self._all.held} bytes, of at most {self._all.limit}. Try again shortly."
            raise RequestError(Reason.QUEUE_FULL, detail, retry_after=1)
        self._all.held += size
        self._held += size

    def free(self, size: int) -> None:
        """Hold so many bytes no longer."""
        self._all.held -= size
        self._held -= size

    def end(self) -> None:
        """Hold nothing any longer."""
        self.free(self._held)


class Unread(Held):
    """Answers that the clients of HTTP do not read: each is in memory as a whole until its client has read it."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._sizes = OrderedDict[Callable[[], None], int]()

    def note(self, abort: Callable[[], None], size: int) -> None:
        """Note how many bytes a client has not read yet. Above the limit, those that have waited longest are aborted.

        Args:
            abort: ends the connection of the client.
            size: in bytes.
        """
        self.held += size - self._sizes.pop(abort, 0)
        if size:
            self._sizes[abort] = size
        while self.held > self.limit and len(self._sizes) > 1:
            abort, size = self._sizes.popitem(last=False)
            self.held -= size
            abort()


class PixelMemory(Held):
    """The pixels of images that stay decoded until all their parts are answered. Only on the event loop."""

    def hold(self, size: int) -> "HeldPixels":
        """Count an image of `size` bytes until it is freed.

        Raises:
            RequestError: `queue_full`: with it there would be more than the limit.
        """
        if not self.fits(size):
            raise RequestError(
                Reason.QUEUE_FULL,
                f"The image has {size / 1e6:.0f} MB of pixels, and images in parts have {self.held / 1e6:.0f} MB of "
                f"{self.limit / 1e6:.0f} MB already (ZOOSERVE_MAX_PIXELS_MB). Try again later.",
                retry_after=1,
            )
        self.held += size
        return HeldPixels(self, size)


class HeldPixels:
    """An image that counts. It has two users: the request, and the call that decodes it, which may outlast that."""

    def __init__(self, memory: PixelMemory, size: int) -> None:
        self._memory, self._size, self._users = memory, size, 2

    def leave(self) -> None:
        """Be called by each user at its end; the last one frees the image."""
        self._users -= 1
        if not self._users:
            self._memory.held -= self._size


class Holder(Protocol):
    """A connection or a call that holds a place."""

    def give_up_place(self) -> None:
        """Close; another holder has the place already."""


HolderT = TypeVar("HolderT", bound=Holder)


class Places(Generic[HolderT]):
    """A number of places. When all are taken, a new holder replaces the one that the server has waited for longest.

    The server waits for a holder while its client has to act: to send a request or the rest of one, or to read its
    answer. A holder whose request is complete and not yet answered is never replaced. All methods are O(1).

    Holders are replaced after a short delay. So when many connections are accepted together, none is closed before its
    request was read. Until then there are more than `limit` holders, but never more than `limit + spare`.
    """

    def __init__(self, limit: int, spare: int) -> None:
        self.limit = limit
        self._waiting: OrderedDict[HolderT, None] = OrderedDict()  # longest first
        self._spare = spare
        self._taken = 0
        self._later: asyncio.TimerHandle | None = None

    def take(self, holder: HolderT) -> bool:
        """Take a place for a new holder, and count it as waiting. Returns False if no other holder can be replaced."""
        over = self._taken - self.limit
        if over >= 0 and len(self._waiting) <= over:
            return False
        if over >= self._spare:
            self._end_one()
        elif over >= 0 and self._later is None:
            self._later = asyncio.get_running_loop().call_later(_GRACE_S, self._end_surplus)
        self._taken += 1
        self._waiting[holder] = None
        return True

    def waits(self, holder: HolderT) -> None:
        """Count a holder as waiting from now on: the server waits for its client."""
        self._waiting[holder] = None
        self._waiting.move_to_end(holder)

    def works(self, holder: HolderT) -> None:
        """Count a holder as working: the server is answering its request."""
        self._waiting.pop(holder, None)

    def leave(self, holder: HolderT) -> None:
        """Give a place back."""
        self._waiting.pop(holder, None)
        self._taken -= 1

    def _end_surplus(self) -> None:
        self._later = None
        while self._taken > self.limit and self._waiting:
            self._end_one()

    def _end_one(self) -> None:
        self._taken -= 1
        self._waiting.popitem(last=False)[0].give_up_place()
