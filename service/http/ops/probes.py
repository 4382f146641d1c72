"""`/livez`, `/readyz` and `/metrics`, for monitoring. They need no key."""

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.health import Health
from service.http.media import json_response
from service.models.entry import State
from service.runtime import Runtime
from service.threads import METRICS

OPEN = frozenset({"/livez", "/readyz", "/metrics"})


class Liveness(msgspec.Struct, omit_defaults=True):
    """The body of `/livez`."""

    alive: bool
    problem: str = ""


class ModelState(msgspec.Struct, omit_defaults=True):
    """One model in `/readyz`."""

    state: State
    reason: str = ""
    refused: str = ""


class Readiness(msgspec.Struct, omit_defaults=True):
    """The body of `/readyz`."""

    ready: bool
    models: dict[str, ModelState]
    problem: str = ""


class Probes:
    """The endpoints, over one server process."""

    def __init__(self, runtime: Runtime, health: Health) -> None:
        self._health = health
        self._repository = runtime.repository
        self._metrics = runtime.metrics
        self._pauses = runtime.pauses

    def routes(self) -> list[Route]:
        """All routes."""
        return [Route("/livez", self.livez), Route("/readyz", self.readyz), Route("/metrics", self.metrics)]

    async def livez(self, _: Request) -> Response:
        """Liveness: 200 while the process makes progress. 503 means that only a restart helps."""
        problem = self._health.stuck()
        return json_response(Liveness(not problem, problem), 503 if problem else 200)

    async def readyz(self, _: Request) -> Response:
        """Readiness: 200 once every model of the start has passed all checks, else 503 with what is missing."""
        entries = self._repository.entries
        models = {name: ModelState(entry.state, entry.reason, entry.refused) for name, entry in entries.items()}
        ready = self._health.ready
        return json_response(Readiness(ready, models, self._health.problem()), 200 if ready else 503)

    async def metrics(self, _: Request) -> Response:
        """Answer in Prometheus' text format."""
        metrics = self._metrics
        for name, entry in self._repository.entries.items():
            for state in State:
                metrics.model_state[name, state.value].set(entry.state is state)
            metrics.refused.labels(name)  # starts the counter at 0, so that an alert sees its first increase
            for why in ("memory", "idle"):
                metrics.evictions.labels(name, why)
            metrics.waiting.labels(name)
            model = entry.model  # another thread may unload it meanwhile
            resident = self._repository.resident(entry)
            metrics.count_resident(name, resident.host, resident.device)
            metrics.queue_depth.labels(name).set(model.batcher.pending if model else 0)
        metrics.engines.set(self._repository.engines())
        metrics.live.set(self._health.live)
        metrics.ready.set(self._health.ready)
        metrics.gc_longest.set(self._pauses.longest)
        body = await METRICS.run(metrics.render)
        return Response(body, media_type=CONTENT_TYPE_LATEST)
