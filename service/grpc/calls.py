"""What all calls have in common: the check of the key, a limit on open calls, and errors as status codes.

All calls are registered as streams, which is the same on the wire, even if they have one message. So the key is checked
before any message is read, and reading has a time limit. gRPC's own limit on calls does not distinguish them: a client
that opens many calls and sends nothing would block health checks.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter
from types import TracebackType
from typing import Self, TypeAlias

import grpc

from service import limits
from service.errors import Reason, RequestError, refusal_of
from service.grpc.refusals import refuse
from service.settings import Settings

Context: TypeAlias = grpc.aio.ServicerContext
Check = Callable[[Mapping[bytes, bytes]], None]
PROBE_S = 1.0  # seconds in which the request of a probe must arrive
_LOOK_EVERY = 0.2  # seconds
_PROBES = 16  # concurrent calls of probes: each is answered as soon as its request has arrived


class Places(limits.Places["Place"]):
    """A limit on the open calls of one kind.

    When all places are taken, a new call replaces the one that has waited longest for a message from its client. Calls
    that are being answered are never replaced.
    """

    def __init__(self, count: int) -> None:
        super().__init__(count, 0)

    def end_late(self) -> None:
        """End the calls whose message did not arrive in time. Called periodically, which is cheaper than timers."""
        now = perf_counter()
        detail = "No message came in time. Open a call when there is one to send."
        for place in [place for place in self._waiting if place.until < now]:
            place.end(RequestError(Reason.DEADLINE, detail))


class Place:
    """One call's place among those of its kind; a context manager that takes it and gives it back.

    Attributes:
        until: when the awaited message must have arrived, a time of `time.perf_counter()` in seconds.
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
        """Give the place back. Calls that continue without it do so before the context ends."""
        if self._held:
            self._held = False
            self._places.leave(self)

    def give_up_place(self) -> None:
        """End the wait for a message: another call takes the place."""
        self._held = False
        detail = "This call waited longest when others needed its place."
        self.end(RequestError(Reason.QUEUE_FULL, detail, retry_after=1))

    def end(self, error: RequestError) -> None:
        """End the wait for a message with an error."""
        assert self._task is not None  # noqa: S101 - set by `message`, which is waiting
        self._ended = error
        self._places.works(self)
        self._task.cancel()

    async def message(self, context: grpc.aio.ServicerContext, seconds: float) -> bytes | None:
        """Return the client's next message, in bytes, or None if it has sent all. Waits for about `seconds`.

        Raises:
            RequestError: `deadline`: it did not arrive in time; `queue_full`: another call takes the place.
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


Call = Callable[[Place, Context], Awaitable[bytes | None]]


class Calls:
    """The calls of one server.

    Attributes:
        open: the contexts of the calls that must end before the server ends.
    """

    def __init__(self, settings: Settings) -> None:
        self.open = set[Context]()
        self._bodies, self._answers = (limits.Bodies(int(settings.max_bodies_mb * 1e6)) for _ in range(2))
        self._places, self._probes = Places(settings.max_connections), Places(_PROBES)

    async def end_late(self) -> None:
        """Periodically end the calls whose message did not arrive in time, until this task is cancelled."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            self._places.end_late()
            self._probes.end_late()

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Count an inference request of `size` bytes as in memory while the context lasts.

        Raises:
            RequestError: `queue_full`: the requests in memory would exceed `ZOOSERVE_MAX_BODIES_MB`.
        """
        bodies = self._bodies
        if not bodies.fits(size):
            detail = f"The current requests have more than {bodies.limit} bytes. Try again shortly."
            raise RequestError(Reason.QUEUE_FULL, detail, retry_after=1)
        bodies.held += size
        try:
            yield
        finally:
            bodies.held -= size

    def untaken(self) -> limits.Share:
        """Begin to count the answers of a call."""
        return limits.Share(self._answers, "Clients have not taken answers")

    def handler(self, call: Call, check: Check | None, *, streams: bool = False) -> grpc.RpcMethodHandler:
        """Make the gRPC handler of a call.

        Args:
            call: reads its messages with `Place.message`. Returns its response, or writes responses to the context.
            check: called with the metadata before anything is read; raises `RequestError` to refuse the call. None: the
                call is a probe, which needs no key, and takes one of the places for probes.
            streams: whether it writes its responses to the context.
        """
        places = self._probes if check is None else self._places

        async def answer(_: object, context: Context) -> bytes | None:
            try:
                if check is not None:
                    self.open.add(context)
                    context.add_done_callback(self.open.discard)
                    check(metadata_of(context))
                with Place(places) as place:
                    response = await call(place, context)
                if response and check is not None:
                    kept = self.untaken()
                    context.add_done_callback(lambda _: kept.end())  # the client has taken it, or has gone
                    kept.add(len(response))
            except grpc.aio.AbortError:
                raise  # the status was sent already
            except Exception as error:
                response = None  # the error's traceback refers to this frame
                await refuse(context, refusal_of(error))
            else:
                return response
            return None

        return (grpc.stream_stream_rpc_method_handler if streams else grpc.stream_unary_rpc_method_handler)(answer)


def metadata_of(context: Context) -> dict[bytes, bytes]:
    """A call's metadata as HTTP headers: names in lower case."""
    given = context.invocation_metadata() or ()
    return {name.encode(): value if isinstance(value, bytes) else value.encode() for name, value in given}
