"""The gRPC server of one process: inference, health and reflection on one port. `http.app` runs it beside HTTP."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from service.grpc.inference import Inference
from service.grpc.schema import POOL, SERVICE
from service.http.keys import Guard
from service.http.status import Status
from service.oip.dataplane import Dataplane
from service.runtime import Runtime

logger = logging.getLogger(__name__)
_IDLE_MS = 300_000  # after which a connection without calls is closed; clients open another when they need one
_PING_MS = 60_000  # after which a silent client is asked whether it is still there
_LOOK_EVERY = 0.2  # seconds in which watchers of the health learn that readiness came or went


@asynccontextmanager
async def serving(runtime: Runtime, dataplane: Dataplane, status: Status, guard: Guard) -> AsyncIterator[None]:
    """Serve until the context ends; then take in nothing more, and finish what was taken in.

    Raises:
        RuntimeError: the port is in use.
    """
    settings = runtime.settings
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", int(settings.max_body_mb * 1e6)),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", int(settings.workers > 1)),
            ("grpc.max_allowed_incoming_connections", settings.max_connections),
            ("grpc.max_connection_idle_ms", _IDLE_MS),
            ("grpc.keepalive_time_ms", _PING_MS),
        ],
        maximum_concurrent_rpcs=settings.max_connections,
    )
    inference = Inference(runtime, dataplane, status, guard)
    server.add_generic_rpc_handlers((inference.handlers(),))
    checks = _Health(status)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    _reflect(server)
    host = os.environ.get("ZOOSERVE_HOST", "127.0.0.1")  # where `zooserve serve` lets HTTP listen
    server.add_insecure_port(f"[{host}]:{settings.grpc_port}" if ":" in host else f"{host}:{settings.grpc_port}")
    telling = asyncio.create_task(checks.keep_telling())
    await server.start()
    logger.info("gRPC listens on port %d", settings.grpc_port)
    try:
        yield
    finally:
        telling.cancel()
        await checks.enter_graceful_shutdown()
        stopping = asyncio.create_task(server.stop(settings.timeout_ms / 1000))
        finishing = asyncio.create_task(inference.finish())
        await asyncio.wait((stopping, finishing), return_when=asyncio.FIRST_COMPLETED)
        finishing.cancel()
        await server.stop(None)  # who watches the health would stay for ever
        await stopping


class _Health(health.aio.HealthServicer):  # type: ignore[misc]  # it has no types
    """Answers as `/readyz` does."""

    def __init__(self, status: Status) -> None:
        super().__init__()
        self._status = status

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 - the service's name for it
        await self._look()
        return await super().Check(request, context)

    async def keep_telling(self) -> None:
        """Tell those who watch, for as long as nobody cancels it."""
        while True:
            await self._look()
            await asyncio.sleep(_LOOK_EVERY)

    async def _look(self) -> None:
        states = health_pb2.HealthCheckResponse
        for service in ("", SERVICE.full_name):
            await self.set(service, states.SERVING if self._status.ready else states.NOT_SERVING)


def _reflect(server: Any) -> None:
    """Let clients such as grpcurl ask for the messages."""
    services = [SERVICE.full_name]
    for file in (health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR):
        POOL.AddSerializedFile(file.serialized_pb)
        services += [service.full_name for service in file.services_by_name.values()]
    reflection.enable_server_reflection(services, server, pool=POOL)
