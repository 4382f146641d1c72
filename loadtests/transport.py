"""How requests reach a server: HTTP/1.1, or the Open Inference Protocol over gRPC. Used by everything that measures."""

import asyncio
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import NamedTuple, Protocol
from urllib.parse import parse_qsl, urlsplit

from loadtests.connections import Connections
from loadtests.exchange import Request
from loadtests.target import Target

# What became of a request: an HTTP status, a status of gRPC's from 1000 on, or one of these.
TIMEOUT, BROKEN, WRONG, ABANDONED, UNREADABLE = 1, 2, 3, 4, 5
GRPC = 1000
_NAMES = {
    TIMEOUT: "no answer in time",
    BROKEN: "connection broke",
    WRONG: "wrong answer",
    ABANDONED: "never sent",
    UNREADABLE: "image not readable",
}
_CHANNELS = 4  # of gRPC, each with a connection of its own: one is bound to one core of the server's event loops

Asked = Request | Callable[[], Request]
"""A request, or what makes it when it is sent: where there are too many images to hold. Raises OSError."""


class Answer(NamedTuple):
    """What became of a request, the JSON that came with 200 or what else was said, and when (`perf_counter()`)."""

    outcome: int
    body: bytes
    finished: float


class Transport(Protocol):
    """Sends requests by their numbers."""

    async def ask(self, which: int) -> Answer:
        """Send a request and wait for what becomes of it. Never raises."""

    async def open(self, connections: int) -> None:
        """Have so many connections ready.

        Raises:
            OSError: nobody listens, or not in time.
        """

    async def close(self) -> None:
        """Close all connections."""


def transport(server: Target, requests: Sequence[Asked], timeout: float) -> Transport:
    """Return what a server is reached by; an answer may take `timeout` seconds.

    Raises:
        TargetError: the file of certificates cannot be read.
    """
    return (OverGrpc if server.grpc else OverHttp)(server, requests, timeout)


def outcome_name(outcome: int) -> str:
    """Return the name of what became of a request, such as `429`, `RESOURCE_EXHAUSTED` or `wrong answer`."""
    if outcome < GRPC:
        return _NAMES.get(outcome, str(outcome))
    from grpc import StatusCode  # noqa: PLC0415 - not always installed

    return next(str(code.name) for code in StatusCode if code.value[0] == outcome - GRPC)


class OverHttp:
    """Sends requests as they are."""

    def __init__(self, server: Target, requests: Sequence[Asked], timeout: float) -> None:
        self._connections, self._requests = Connections(server, timeout), requests
        self._encoded = [one.encode(server) if isinstance(one, Request) else None for one in requests]

    async def ask(self, which: int) -> Answer:
        try:
            encoded = self._encoded[which] or _made(self._requests[which]).encode(self._connections.server)
        except OSError as error:
            return _failed(UNREADABLE, error)
        try:
            response = await self._connections.exchange(encoded)
        except TimeoutError as error:
            return _failed(TIMEOUT, error)
        except OSError as error:
            return _failed(BROKEN, error)
        return Answer(response.status, response.body, response.finished)

    async def open(self, connections: int) -> None:
        await self._connections.fill(connections)

    async def close(self) -> None:
        self._connections.close()


class OverGrpc:
    """Calls `ModelInfer`: a request's body, an encoded image, becomes the message, its query the parameters."""

    def __init__(self, target: Target, requests: Sequence[Asked], timeout: float) -> None:
        import grpc  # noqa: PLC0415 - not always installed

        from loadtests import oip_grpc  # noqa: PLC0415

        self._grpc, self._oip = grpc, oip_grpc
        self._target, self._timeout, self._requests = target, timeout, requests
        self._metadata = oip_grpc.metadata(target)
        self._encoded = [self._encode(one) if isinstance(one, Request) else None for one in requests]
        self._channels = [oip_grpc.open_channel(target) for _ in range(_CHANNELS)]
        self._calls = [oip_grpc.infer_call(channel) for channel in self._channels]
        self._asked = 0

    async def ask(self, which: int) -> Answer:
        self._asked += 1
        call = self._calls[self._asked % len(self._calls)]
        try:
            encoded = self._encoded[which] or self._encode(_made(self._requests[which]))
        except OSError as error:
            return _failed(UNREADABLE, error)
        try:
            response = await call(encoded, timeout=self._timeout, metadata=self._metadata)
            finished = perf_counter()
            return Answer(200, self._oip.result_of(response), finished)
        except self._grpc.aio.AioRpcError as error:
            code = error.code()
            known = {self._grpc.StatusCode.DEADLINE_EXCEEDED: TIMEOUT, self._grpc.StatusCode.UNAVAILABLE: BROKEN}
            said = (error.details() or code.name).encode()
            return Answer(known.get(code, GRPC + code.value[0]), said, perf_counter())
        except ValueError as error:
            return _failed(BROKEN, error)

    async def open(self, connections: int) -> None:  # noqa: ARG002 - there are as many as there are channels
        ready = asyncio.gather(*(channel.channel_ready() for channel in self._channels))
        try:
            await asyncio.wait_for(ready, self._timeout)
        except TimeoutError as error:
            said = f"{self._target.url} is not reachable over gRPC within {self._timeout:g} s"
            raise ConnectionError(said) from error

    async def close(self) -> None:
        await asyncio.gather(*(channel.close() for channel in self._channels))

    def _encode(self, request: Request) -> bytes:
        options = dict(parse_qsl(urlsplit(request.path).query, keep_blank_values=True))
        return self._oip.infer_request(options.pop("model", self._target.model), request.body, options)


def _made(asked: Asked) -> Request:
    return asked if isinstance(asked, Request) else asked()


def _failed(outcome: int, error: Exception) -> Answer:
    return Answer(outcome, str(error).encode(), perf_counter())
