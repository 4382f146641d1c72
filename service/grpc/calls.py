"""How every call begins and ends, whatever it asks: its key, its place, its answer or its status.

The requests of all are streams for gRPC, those of one message too, which are the same on the wire: so the key is
checked before any message of a client's is read, and reading has a limit of time.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from service.errors import Reason, RequestError
from service.grpc.places import Place, Places
from service.grpc.refusals import refuse
from service.http.bodies import Bodies
from service.settings import Settings

logger = logging.getLogger(__name__)
Call = Callable[[Place, Any], Awaitable[bytes | None]]
Check = Callable[[dict[bytes, bytes]], None]
PROBE_S = 1.0  # seconds in which the request of a probe must have come
_LOOK_EVERY = 0.2  # seconds
_PROBES = 16  # calls of probes at once: each is over as soon as its request has come


class Calls:
    """The calls of one server.

    Attributes:
        open: the contexts of calls that are to be finished before the server ends.
    """

    def __init__(self, settings: Settings) -> None:
        self.open = set[Any]()
        self._bodies = Bodies(int(settings.max_bodies_mb * 1e6))
        self._places, self._probes = Places(settings.max_connections), Places(_PROBES)

    async def end_late(self) -> None:
        """End calls whose message does not come, for as long as nobody cancels it."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            self._places.end_late()
            self._probes.end_late()

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """While a request to infer of so many bytes is under way; raises `RequestError` (`queue_full`) at its start."""
        bodies = self._bodies
        if not bodies.room_for(size):
            detail = f"The requests under way have more than {bodies.limit} bytes. Try again shortly."
            raise RequestError(Reason.QUEUE_FULL, detail, retry_after=1)
        bodies.held += size
        try:
            yield
        finally:
            bodies.held -= size

    def handler(self, call: Call, check: Check, *, streams: bool = False) -> Any:
        """Make the handler of a call, which gets its place and its context.

        Args:
            call: reads its messages from its place. It returns its response, or writes its responses to the context.
            check: told the metadata before anything is read; raises `RequestError` where the caller may not call.
            streams: whether it writes its responses.
        """

        async def answer(_: Any, context: Any) -> bytes | None:
            self.open.add(context)
            context.add_done_callback(self.open.discard)
            try:
                check(metadata_of(context))
                with self._places.place() as place:
                    return await call(place, context)
            except Exception as error:
                await refuse(context, refusal_of(error))

        return _handler(answer, streams)

    def probe_handler(self, call: Call, *, streams: bool = False) -> Any:
        """Make the handler of a call that needs no key and has one of the probes' places while it reads its request."""

        async def answer(_: Any, context: Any) -> bytes | None:
            try:
                with self._probes.place() as place:
                    return await call(place, context)
            except grpc.aio.AbortError:
                raise  # its status is sent already
            except Exception as error:
                await refuse(context, refusal_of(error))

        return _handler(answer, streams)


def _handler(answer: Callable[[Any, Any], Awaitable[bytes | None]], streams: bool) -> Any:
    return (grpc.stream_stream_rpc_method_handler if streams else grpc.stream_unary_rpc_method_handler)(answer)


def metadata_of(context: Any) -> dict[bytes, bytes]:
    """A call's metadata as HTTP's headers, which is what they are on the wire."""
    given = context.invocation_metadata() or ()
    return {name.encode(): value if isinstance(value, bytes) else value.encode() for name, value in given}


def refusal_of(error: Exception) -> RequestError:
    """An error for the client. What is no refusal is a fault of ours: it is logged, not told."""
    if isinstance(error, RequestError):
        return error
    logger.error("a call failed", exc_info=error)
    return RequestError(Reason.INTERNAL, "The server failed on this request; its log says why.")
