"""What the service says of itself: `/livez`, `/readyz`, `/metrics`, `/v1/models` and `/v1/models/NAME`."""

import asyncio
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from service.engine.profile import Profile
from service.engine.repository import Repository, Slot, State
from service.errors import Reason, RequestError
from service.garbage import Pauses
from service.metrics import Metrics
from zoo.card import ServedCard


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
    card: ServedCard | None
    reason: str = ""
    refused: str = ""
    provider: str = ""
    profile: Profile | None = None


class Status:
    """The endpoints, over one repository."""

    def __init__(self, repository: Repository, metrics: Metrics, pauses: Pauses) -> None:
        self._repository = repository
        self._metrics = metrics
        self._pauses = pauses

    async def livez(self, _: Request) -> Response:
        """Answer 200 while the event loop turns."""
        return _json({"alive": True})

    async def readyz(self, _: Request) -> Response:
        """Answer 200 once every model passed every check, else 503 and what is missing."""
        repository = self._repository
        models = {name: ModelState(slot.state, slot.reason, slot.refused) for name, slot in repository.slots.items()}
        return _json(Readiness(repository.ready, models, repository.problem), 200 if repository.ready else 503)

    async def metrics(self, _: Request) -> Response:
        """Answer in Prometheus' text format."""
        for name, slot in self._repository.slots.items():
            if slot.model is not None:
                self._metrics.queue_depth.labels(name).set(slot.model.batcher.pending)
        self._metrics.gc_longest.set(self._pauses.longest)
        body = await asyncio.get_running_loop().run_in_executor(None, self._metrics.render)
        return Response(body, media_type=CONTENT_TYPE_LATEST)

    async def models(self, _: Request) -> Response:
        """List the models."""
        return _json(Models([_summary(slot) for slot in self._repository.slots.values()]))

    async def model(self, request: Request) -> Response:
        """Tell everything about one model."""
        name = request.path_params["name"]
        slot = self._repository.slots.get(name)
        if slot is None:
            raise RequestError(Reason.UNKNOWN_MODEL, self._repository.unknown(name))
        details = ModelDetails(slot.state, slot.card, slot.reason, slot.refused)
        if slot.model is not None:
            details.provider, details.profile = slot.model.session.provider, slot.model.profile
        return _json(details)


def _summary(slot: Slot) -> ModelSummary:
    card = slot.card
    if card is None:
        return ModelSummary(slot.name, slot.state)
    return ModelSummary(
        name=slot.name,
        state=slot.state,
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
