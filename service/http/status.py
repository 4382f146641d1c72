"""What the service says of itself: `/livez`, `/readyz`, `/metrics`, `/v1/models` and `/v1/models/NAME`."""

from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from service.engine.profile import Profile
from service.errors import Reason, RequestError
from service.http.drain import Drain
from service.models.entry import ModelEntry, State
from service.runtime import Runtime
from service.threads import METRICS
from zoo.served_card import AnyServed


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


class ModelSummary(msgspec.Struct, omit_defaults=True):
    """One model in `/v1/models`. Only name and state are known of a model whose card cannot be read."""

    name: str
    state: State
    version: str = ""
    task: str = ""
    title: str = ""
    licence: str = ""
    precision: str = ""
    accepted: tuple[str, ...] = ()
    default: bool = False


class Models(msgspec.Struct):
    """The body of `/v1/models`."""

    models: list[ModelSummary]


class ModelDetails(msgspec.Struct, omit_defaults=True):
    """The body of `/v1/models/NAME`: the card, and how the model runs on this machine."""

    state: State
    card: AnyServed | None
    reason: str = ""
    refused: str = ""
    provider: str = ""
    profile: Profile | None = None


class Status:
    """The endpoints, over one server process."""

    def __init__(self, runtime: Runtime, drain: Drain) -> None:
        self._repository = runtime.repository
        self._workers = runtime.workers
        self._metrics = runtime.metrics
        self._pauses = runtime.pauses
        self._stuck_s = runtime.settings.stuck_s
        self._drain = drain

    @property
    def live(self) -> bool:
        """Whether the event loop turns and the workers get on."""
        return not self._stuck()

    @property
    def ready(self) -> bool:
        """Whether every model passed every check, and the server is to stay."""
        return self._repository.ready and not self._problem()

    async def livez(self, _: Request) -> Response:
        """Answer 200 while the event loop turns and the workers get on, else 503: only a restart would help."""
        problem = self._stuck()
        return _json(Liveness(not problem, problem), 503 if problem else 200)

    async def readyz(self, _: Request) -> Response:
        """Answer 200 once every model passed every check, else 503 and what is missing."""
        entries = self._repository.entries
        models = {name: ModelState(entry.state, entry.reason, entry.refused) for name, entry in entries.items()}
        ready = self.ready
        return _json(Readiness(ready, models, self._problem()), 200 if ready else 503)

    async def metrics(self, _: Request) -> Response:
        """Answer in Prometheus' text format."""
        metrics = self._metrics
        for name, entry in self._repository.entries.items():
            for state in State:
                metrics.model_state[name, state.value].set(entry.state is state)
            metrics.refused.labels(name)  # from 0 on, so that the first one is seen to rise
            model = entry.model  # another thread may unload it meanwhile
            metrics.queue_depth.labels(name).set(model.batcher.pending if model else 0)
        metrics.live.set(self.live)
        metrics.ready.set(self.ready)
        metrics.gc_longest.set(self._pauses.longest)
        body = await METRICS.run(metrics.render)
        return Response(body, media_type=CONTENT_TYPE_LATEST)

    async def models(self, _: Request) -> Response:
        """List the models."""
        return _json(Models([_summary(entry) for entry in self._repository.entries.values()]))

    async def model(self, request: Request) -> Response:
        """Tell everything about one model."""
        name = request.path_params["name"]
        entry = self._repository.entries.get(name)
        if entry is None:
            raise RequestError(Reason.UNKNOWN_MODEL, self._repository.unknown(name))
        details = ModelDetails(entry.state, entry.card, entry.reason, entry.refused)
        model = entry.model  # another thread may unload it meanwhile
        if model is not None:
            details.provider, details.profile = model.session.provider, model.profile
        return _json(details)

    def _stuck(self) -> str:
        """Why only a restart would help, if so."""
        longest = self._workers.longest()
        if 0 < self._stuck_s < longest:
            return f"one run has not ended for {longest:.0f} s"
        return self._repository.broken

    def _problem(self) -> str:
        """What keeps the server as a whole from being ready, beside its models."""
        if self._drain.on:
            return "The server is about to stop."
        return self._repository.broken or self._repository.problem


def _summary(entry: ModelEntry) -> ModelSummary:
    card = entry.card
    if card is None:
        return ModelSummary(entry.name, entry.state)
    return ModelSummary(
        name=entry.name,
        state=entry.state,
        version=card.version,
        task=card.task,
        title=card.title,
        licence=card.licence.weights,
        precision=card.precision,
        accepted=card.accepted,
        default=card.task_default,
    )


def _json(body: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")
