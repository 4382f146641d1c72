"""How every call begins and ends, whatever it asks: its key, its place, its answer or its status.

All requests are streams for gRPC, those of one message too; on the wire they are the same. So the key is checked before
any message of a client is read, and reading has a limit of time.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias

import grpc

from service.errors import Reason, RequestError
from service.grpc.places import Place, Places
from service.grpc.refusals import refuse
from service.limits import Bodies
from service.request import INTERNAL
from service.settings import Settings

logger = logging.getLogger(__name__)
Context: TypeAlias = grpc.aio.ServicerContext
Call = Callable[[Place, Context], Awaitable[bytes | None]]
Check = Callable[[Mapping[bytes, bytes]], None]
PROBE_S = 1.0  # seconds in which the request of a probe must have come
_LOOK_EVERY = 0.2  # seconds
_PROBES = 16  # calls of probes at once: each is over as soon as its request has come


class Calls:
    """The calls of one server.

    Attributes:
        open: the contexts of calls that are to be finished before the server ends.
    """

    def __init__(self, settings: Settings) -> None:
        self.open = set[Context]()
        self._bodies = Bodies(int(settings.max_bodies_mb * 1e6))
        self._places, self._probes = Places(settings.max_connections), Places(_PROBES)

    async def end_late(self) -> None:
        """End calls whose message does not come, until this task is cancelled."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            self._places.end_late()
            self._probes.end_late()

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Count the bytes of a request to infer while it is under way.

        Raises:
            RequestError: `queue_full`, at its start.
        """
        bodies = self._bodies
        if not bodies.room_for(size):
            detail = f"The requests under way have more than {bodies.limit} bytes. Try again shortly."
            raise RequestError(Reason.QUEUE_FULL, detail, retry_after=1)
        bodies.held += size
        try:
            yield
        finally:
            bodies.held -= size

    def handler(self, call: Call, check: Check, *, streams: bool = False) -> grpc.RpcMethodHandler:
        """Make the handler of a call, which gets its place and its context.

        Args:
            call: reads its messages from its place. It returns its response, or writes its responses to the context.
            check: called with the metadata before anything is read; raises `RequestError` where it may not be called.
            streams: whether it writes its responses.
        """

        async def answer(_: object, context: Context) -> bytes | None:
            self.open.add(context)
            context.add_done_callback(self.open.discard)
            try:
                check(metadata_of(context))
                with Place(self._places) as place:
                    return await call(place, context)
            except Exception as error:
                await refuse(context, refusal_of(error))

        return _handler(answer, streams)

    def probe_handler(self, call: Call, *, streams: bool = False) -> grpc.RpcMethodHandler:
        """Make the handler of a call that needs no key and has one of the probes' places while it reads its request."""

        async def answer(_: object, context: Context) -> bytes | None:
            try:
                with Place(self._probes) as place:
                    return await call(place, context)
            except grpc.aio.AbortError:
                raise  # its status is sent already
            except Exception as error:
                await refuse(context, refusal_of(error))

        return _handler(answer, streams)


def _handler(answer: Callable[[object, Context], Awaitable[bytes | None]], streams: bool) -> grpc.RpcMethodHandler:
    return (grpc.stream_stream_rpc_method_handler if streams else grpc.stream_unary_rpc_method_handler)(answer)


def metadata_of(context: Context) -> dict[bytes, bytes]:
    """A call's metadata, in the form of HTTP's headers."""
    given = context.invocation_metadata() or ()
    return {name.encode(): value if isinstance(value, bytes) else value.encode() for name, value in given}


def refusal_of(error: Exception) -> RequestError:
    """Return what a client is told of an error. One that is not a `RequestError` is a bug: it is logged, not told."""
    if isinstance(error, RequestError):
        return error
    logger.error("a call failed", exc_info=error)
    return RequestError(Reason.INTERNAL, INTERNAL)
