"""Health checks (`grpc.health.v1`), with the same answer as `/readyz`. `server` registers them; they need no key."""

import asyncio

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2

from service.errors import Reason, RequestError
from service.grpc.calls import PROBE_S, Calls, Context, Place
from service.grpc.codec import parse
from service.grpc.schema import SERVICE
from service.health import Health

_LOOK_EVERY = 0.2  # seconds between two checks for changed readiness
_WATCHERS = 64  # concurrent Watch calls
_LARGEST = 1024  # bytes of a request, which names a service


class HealthService:
    """The health service of one server."""

    def __init__(self, ours: Health, calls: Calls) -> None:
        self._health, self._calls = ours, calls
        self._services = health.aio.HealthServicer()
        self._known: bool | None = None
        self._watchers = 0

    def handlers(self) -> grpc.GenericRpcHandler:
        """Make the handlers of every call of the service."""
        calls = {
            "Check": self._calls.handler(self._check, None),
            "Watch": self._calls.handler(self._watch, None, streams=True),
        }
        return grpc.method_handlers_generic_handler("grpc.health.v1.Health", calls)

    async def keep_updating(self) -> None:
        """Send changes of readiness to the Watch calls, until this task is cancelled."""
        while True:
            await self._look()
            await asyncio.sleep(_LOOK_EVERY)

    async def stop(self) -> None:
        """Send `NOT_SERVING` to all Watch calls, because the server ends."""
        await self._services.enter_graceful_shutdown()

    async def _check(self, place: Place, context: Context) -> bytes:
        request = await self._request(place, context)
        await self._look()
        response: bytes = (await self._services.Check(request, context)).SerializeToString()
        return response

    async def _watch(self, place: Place, context: Context) -> None:
        request = await self._request(place, context)
        place.release()  # the call may last for hours
        if self._watchers >= _WATCHERS:
            raise RequestError(Reason.QUEUE_FULL, f"{_WATCHERS} calls watch already: ask with Check.", retry_after=60)
        self._watchers += 1
        try:
            await self._services.Watch(request, _Serializing(context))
        finally:
            self._watchers -= 1

    async def _request(self, place: Place, context: Context) -> health_pb2.HealthCheckRequest:
        data = await place.message(context, PROBE_S)
        if len(data or b"") > _LARGEST:
            raise RequestError(Reason.TOO_LARGE, f"A service's name has at most {_LARGEST} bytes.")
        return parse(health_pb2.HealthCheckRequest, data or b"")

    async def _look(self) -> None:
        ready = self._health.ready
        if ready is self._known:
            return
        self._known = ready
        states = health_pb2.HealthCheckResponse
        for service in ("", SERVICE.full_name):
            await self._services.set(service, states.SERVING if ready else states.NOT_SERVING)


class _Serializing:
    """Serializes the messages that are written to a context. Our handlers' contexts take bytes."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def write(self, response: Message) -> None:
        await self._context.write(response.SerializeToString())
