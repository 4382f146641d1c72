"""Starts and stops one server process: HTTP, and gRPC if its port is set, with one `Runtime`. `bento` calls this."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from starlette.applications import Starlette
from starlette.types import ASGIApp

from service import grpc
from service.health import Health
from service.http.app import build_app
from service.http.server.refusals import count_by
from service.internals import limit_handshakes
from service.keys import Guard
from service.limits import allow_files, files_for
from service.models.entry import State
from service.oip.dataplane import Dataplane
from service.request import Lifecycle
from service.runtime import Runtime
from service.supervisor import end_by_itself, end_unless_alive

logger = logging.getLogger(__name__)
_TAKE_OVER_S = 15.0  # seconds that a process may load before it accepts requests in place of one that died
_HANDSHAKE_S = 10.0


def build_server(runtime: Runtime, behind: Starlette) -> ASGIApp:
    """Build the app of a server process. Models are loaded and ports opened only when the app's lifespan begins.

    Args:
        runtime: of this process.
        behind: BentoML's app, which gets the requests that are not ours.
    """
    settings = runtime.settings
    lifecycle = Lifecycle(runtime, Guard(settings.api_keys, settings.admin_keys))
    dataplane, health = Dataplane(runtime), Health(runtime)

    def count(status: int, reason: str) -> None:
        runtime.metrics.requests["", "", str(status)].inc()
        runtime.metrics.rejected.labels("", reason).inc()

    count_by(count)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        _use_batch_scheduling()
        allow_files(files_for(settings.max_connections, 2 if settings.grpc_port else 1))
        if settings.tls_certificate:
            limit_handshakes(min(settings.receive_s, _HANDSHAKE_S))
        health.drain.install()
        runtime.start()
        runtime.on_demand.start()
        known, loaded = asyncio.create_task(_known(runtime)), asyncio.create_task(_loaded(runtime))
        # Clients wait for their connection instead of getting the error `not_ready`.
        await asyncio.wait([loaded if runtime.replaces else known], timeout=_TAKE_OVER_S)
        async with (
            behind.router.lifespan_context(behind),
            grpc.listening(lifecycle, dataplane, health, settings),
        ):
            noting = asyncio.create_task(_note_state(runtime))
            yield
            noting.cancel()
            end_by_itself()
        runtime.stop()

    return build_app(runtime, lifecycle, dataplane, health, behind, lifespan)


async def _note_state(runtime: Runtime) -> None:
    """Keep this process' part of the queues' depths and the models' states current: another may answer `/metrics`.

    And record which models it serves: another may replace it. Where there are others it ends if it hangs, for who asks
    `/livez` may reach them, while it still gets its share of the connections.
    """
    while True:
        if runtime.settings.processes > 1:
            end_unless_alive(runtime.settings.stuck_s)
        runtime.unloaded.note_served(runtime.repository.served)
        runtime.metrics.end_states(runtime.repository.entries)
        for name, entry in runtime.repository.entries.items():
            model = entry.model
            runtime.metrics.queue_depth.labels(name).set(model.batcher.pending if model else 0)
        await asyncio.sleep(1.0)


async def _known(runtime: Runtime) -> None:
    """Wait until it is known which models there are."""
    while not runtime.repository.known:
        await asyncio.sleep(0.01)


async def _loaded(runtime: Runtime) -> None:
    """Wait until every model is loaded, or has failed to load."""
    await _known(runtime)
    while any(entry.state is State.LOADING for entry in runtime.repository.entries.values()):
        await asyncio.sleep(0.05)
    runtime.unloaded.note_started()


def _use_batch_scheduling() -> None:
    """Set SCHED_BATCH: the event loop then preempts inference threads less often. Linux only.

    If all cores are busy, more requests per second are answered. If one is free, the loop still runs at once.
    """
    if hasattr(os, "SCHED_BATCH"):
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
