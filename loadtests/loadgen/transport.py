"""How a sender's queries reach the server: HTTP/1.1, or the Open Inference Protocol over gRPC. Used by `sender`."""

import asyncio
from typing import NamedTuple, Protocol

from loadtests.connections import Connections
from loadtests.exchange import Request
from loadtests.loadgen.wire import BROKEN, GRPC, TIMEOUT, UNREADABLE, Image, Plan
from loadtests.target import Target

_CHANNELS = 4  # of gRPC, each with a connection of its own: one is bound to one core of the server's event loops


class Answer(NamedTuple):
    """What became of a query (see `wire`), and the JSON that came with 200, or what else was said."""

    outcome: int
    body: bytes


class Transport(Protocol):
    """Asks about images by their number."""

    async def ask(self, which: int) -> Answer:
        """Send a query and wait for what becomes of it. Never raises."""

    async def open(self, connections: int) -> None:
        """Have so many connections ready before the first query."""

    async def close(self) -> None:
        """Close all connections."""


def transport(plan: Plan) -> Transport:
    """Return what a plan's server is reached by."""
    target = plan.where.target()
    return OverGrpc(target, plan) if target.grpc else OverHttp(target, plan)


class OverHttp:
    """Posts each image to the path of its task."""

    def __init__(self, target: Target, plan: Plan) -> None:
        self._connections = Connections(target, plan.timeout)
        self._target, self._path = target, target.question_with(plan.options)
        self._images = plan.images
        self._encoded = [None if image.path else self._encode(image) for image in plan.images]

    async def ask(self, which: int) -> Answer:
        try:
            request = self._encoded[which] or self._encode(self._images[which])
        except OSError as error:
            return Answer(UNREADABLE, str(error).encode())
        try:
            response = await self._connections.exchange(request)
        except TimeoutError as error:
            return Answer(TIMEOUT, str(error).encode())
        except OSError as error:
            return Answer(BROKEN, str(error).encode())
        return Answer(response.status, response.body)

    async def open(self, connections: int) -> None:
        await asyncio.gather(*(self.ask(0) for _ in range(connections)))

    async def close(self) -> None:
        self._connections.close()

    def _encode(self, image: Image) -> bytes:
        return Request("POST", self._path, {"Content-Type": image.content_type}, image.read()).encode(self._target)


class OverGrpc:
    """Calls `ModelInfer` with each encoded image."""

    def __init__(self, target: Target, plan: Plan) -> None:
        import grpc  # noqa: PLC0415 - not always installed

        from loadtests import oip_grpc  # noqa: PLC0415

        self._grpc, self._oip = grpc, oip_grpc
        self._timeout = plan.timeout
        self._metadata = oip_grpc.metadata(target)
        self._model, self._options = target.model, plan.options
        self._images = plan.images
        self._encoded = [None if image.path else self._encode(image) for image in plan.images]
        self._channels = [oip_grpc.open_channel(target) for _ in range(min(_CHANNELS, plan.connections))]
        self._calls = [oip_grpc.infer_call(channel) for channel in self._channels]
        self._asked = 0

    async def ask(self, which: int) -> Answer:
        self._asked += 1
        call = self._calls[self._asked % len(self._calls)]
        try:
            request = self._encoded[which] or self._encode(self._images[which])
        except OSError as error:
            return Answer(UNREADABLE, str(error).encode())
        try:
            response = await call(request, timeout=self._timeout, metadata=self._metadata)
            return Answer(200, self._oip.result_of(response))
        except self._grpc.aio.AioRpcError as error:
            code = error.code()
            known = {self._grpc.StatusCode.DEADLINE_EXCEEDED: TIMEOUT, self._grpc.StatusCode.UNAVAILABLE: BROKEN}
            return Answer(known.get(code, GRPC + code.value[0]), (error.details() or code.name).encode())
        except ValueError as error:
            return Answer(BROKEN, str(error).encode())

    async def open(self, connections: int) -> None:
        await asyncio.gather(*(self.ask(0) for _ in range(connections)))

    async def close(self) -> None:
        await asyncio.gather(*(channel.close() for channel in self._channels))

    def _encode(self, image: Image) -> bytes:
        return self._oip.infer_request(self._model, image.read(), self._options)
