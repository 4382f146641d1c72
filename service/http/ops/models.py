"""The models of the server, and loading and unloading them while serving. `zooserve reload` calls these endpoints.

`GET /v1/models` and `/v1/models/NAME`; for administrators `POST /v1/models/NAME/load` and `.../unload`, and
`POST /v1/models/reload`, which checks all models of the store.
"""

from time import perf_counter

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.engine.profile import Profile
from service.http.media import json_response
from service.keys import Guard
from service.models.entry import ModelEntry, State
from service.runtime import Runtime
from service.threads import LOADING
from zoo.served_card import AnyServed


class ModelSummary(msgspec.Struct, omit_defaults=True):
    """One model in `/v1/models`. If its card cannot be read, only name and state are set.

    Attributes:
        pinned: whether it stays loaded within the budget for models' memory; without a budget, this and the rest is not
            there.
        bytes, gpu_bytes: that it takes while it is loaded, as measured.
        idle_s: seconds since its last request, or since it was loaded.
    """

    name: str
    state: State
    version: str = ""
    task: str = ""
    title: str = ""
    licence: str = ""
    precision: str = ""
    accepted: tuple[str, ...] = ()
    default: bool = False
    pinned: bool = False
    bytes: int = 0
    gpu_bytes: int = 0
    idle_s: float | None = None


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


class ModelRoutes:
    """The endpoints. Models are loaded on their own threads, so other requests are answered meanwhile."""

    def __init__(self, runtime: Runtime, guard: Guard) -> None:
        self._repository, self._on_demand, self._guard = runtime.repository, runtime.on_demand, guard
        self._load_s = runtime.settings.load_s

    def routes(self) -> list[Route]:
        """All routes."""
        return [
            Route("/v1/models", self.models),
            Route("/v1/models/reload", self.reload, methods=["POST"]),
            Route("/v1/models/{name}", self.model),
            Route("/v1/models/{name}/load", self.load, methods=["POST"]),
            Route("/v1/models/{name}/unload", self.unload, methods=["POST"]),
        ]

    async def models(self, _: Request) -> Response:
        """List the models."""
        on = self._repository.budget.on
        return json_response(Models([_summary(entry, on_demand=on) for entry in self._repository.entries.values()]))

    async def model(self, request: Request) -> Response:
        """Answer with the details of one model.

        Raises:
            RequestError: as `Registry.named`.
        """
        entry = self._repository.named(request.path_params["name"])
        details = ModelDetails(entry.state, entry.card, entry.reason, entry.refused)
        model = entry.model  # another thread may unload it meanwhile
        if model is not None:
            details.provider, details.profile = model.provider, model.profile
        return json_response(details)

    async def load(self, request: Request) -> Response:
        """Load a model in the version that the store holds now; answer with its details."""
        self._guard.check_admin(dict(request.scope["headers"]))
        await self._on_demand.load(request.path_params["name"], perf_counter() + self._load_s)
        return await self.model(request)

    async def unload(self, request: Request) -> Response:
        """Unload a model; answer with its details."""
        self._guard.check_admin(dict(request.scope["headers"]))
        await LOADING.run(self._repository.unload, request.path_params["name"])
        return await self.model(request)

    async def reload(self, request: Request) -> Response:
        """Load what is new in the store; answer with the list of models."""
        self._guard.check_admin(dict(request.scope["headers"]))
        await LOADING.run(self._repository.reload)
        return await self.models(request)


def _summary(entry: ModelEntry, *, on_demand: bool) -> ModelSummary:
    card, model = entry.card, entry.model
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
        pinned=on_demand and entry.pinned,
        bytes=entry.footprint.host,
        gpu_bytes=entry.footprint.device,
        idle_s=round(model.usage.idle(perf_counter()), 1) if model and on_demand else None,
    )
