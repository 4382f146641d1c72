"""The gRPC server of one process: inference, health and reflection on one port. `service.server` runs it."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from service.errors import Reason, RequestError
from service.grpc.calls import Calls, Context, Place
from service.grpc.codec import parse
from service.grpc.credentials import credentials
from service.grpc.health import HealthService
from service.grpc.inference import Inference
from service.grpc.schema import POOL, SERVICE
from service.health import Health
from service.oip.dataplane import Dataplane
from service.request import Lifecycle
from service.settings import Settings
from service.tls import files_of

logger = logging.getLogger(__name__)
_IDLE_MS = 300_000  # a connection is closed after this time without calls; clients reconnect when needed
_PING_MS = 60_000  # a client is pinged after this time without data from it
_PING_OFTEN_MS = 500  # the shortest interval at which clients may ping; service meshes ping every 10 s
_REFLECTION = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
_LARGEST_NAME = 4096  # bytes of a request to reflect


@asynccontextmanager
async def serving(
    lifecycle: Lifecycle, dataplane: Dataplane, health: Health, settings: Settings
) -> AsyncIterator[None]:
    """Serve until the context ends; then refuse new calls and finish those that were accepted.

    Raises:
        RuntimeError: the port is in use.
    """
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", settings.max_body_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", int(settings.processes > 1)),
            ("grpc.max_allowed_incoming_connections", settings.max_connections),
            ("grpc.max_connection_idle_ms", _IDLE_MS),
            ("grpc.keepalive_time_ms", _PING_MS),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", _PING_OFTEN_MS),
            ("grpc.server_handshake_timeout_ms", int(1000 * settings.receive_s)),
        ],
    )
    calls = Calls(settings)
    inference = Inference(lifecycle, dataplane, health, settings, calls)
    probes = HealthService(health, calls)
    reflecting = calls.handler(_Reflection(settings).answer, lifecycle.guard.check, streams=True)
    server.add_generic_rpc_handlers(
        (
            inference.handlers(),
            probes.handlers(),
            grpc.method_handlers_generic_handler(_REFLECTION.full_name, {_REFLECTION.methods[0].name: reflecting}),
        )
    )
    host = os.environ.get("ZOOSERVE_HOST", "127.0.0.1")  # where `zooserve serve` lets HTTP listen
    address = f"[{host}]:{settings.grpc_port}" if ":" in host else f"{host}:{settings.grpc_port}"
    if files := files_of(settings):
        server.add_secure_port(address, credentials(files))
    else:
        server.add_insecure_port(address)
    updating = asyncio.create_task(probes.keep_updating())
    ending = asyncio.create_task(calls.end_late())
    await server.start()
    logger.info("gRPC listens on port %d", settings.grpc_port)
    try:
        yield
    finally:
        updating.cancel()
        ending.cancel()
        await probes.stop()
        stopping = asyncio.create_task(server.stop(settings.timeout_ms / 1000))
        finishing = asyncio.create_task(inference.finish())
        await asyncio.wait((stopping, finishing), return_when=asyncio.FIRST_COMPLETED)
        finishing.cancel()
        await server.stop(None)  # ends Watch calls, which do not end by themselves
        await stopping


class _Reflection:
    """Server reflection: clients such as grpcurl ask for the definitions of the messages."""

    def __init__(self, settings: Settings) -> None:
        self._receive_s = settings.receive_s
        services = [SERVICE.full_name]
        for file in (health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR):
            POOL.AddSerializedFile(file.serialized_pb)
            services += [service.full_name for service in file.services_by_name.values()]
        self._servicer = reflection.aio.ReflectionServicer(services, pool=POOL)

    async def answer(self, place: Place, context: Context) -> None:
        """Answer the requests of one stream."""

        async def requests() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
            while (data := await place.message(context, self._receive_s)) is not None:
                if len(data) > _LARGEST_NAME:
                    raise RequestError(Reason.TOO_LARGE, f"A name has at most {_LARGEST_NAME} bytes.")
                yield parse(reflection_pb2.ServerReflectionRequest, data)

        async for response in self._servicer.ServerReflectionInfo(requests(), context):
            await context.write(response.SerializeToString())
