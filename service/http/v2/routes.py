"""The Open Inference Protocol (KServe V2) over HTTP: all paths under `/v2`. `http.app` passes requests to it.

`v2.infer` answers inference requests, Starlette's router all others. Errors are `{"error": "..."}`.
https://github.com/kserve/open-inference-protocol, with Triton's extensions for binary tensor data, the model
repository, the configuration and statistics.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from inspect import isawaitable
from typing import TypeVar

import msgspec
from msgspec import Struct
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from service.errors import Reason, RequestError, internal
from service.health import Health
from service.http.endpoint import limited, read_whole
from service.http.media import json_response
from service.http.problems import detail_of, headers
from service.http.v2.body import LARGE
from service.http.v2.infer import STATUSES, Failure, Infer
from service.oip.dataplane import Dataplane
from service.request import Lifecycle
from service.settings import Settings

BodyT = TypeVar("BodyT")


class _IndexRequest(Struct):
    ready: bool = False


class _LoadRequest(Struct):
    parameters: dict[str, object] = {}


class OpenInference:
    """All routes under `/v2`."""

    def __init__(self, lifecycle: Lifecycle, dataplane: Dataplane, health: Health, settings: Settings) -> None:
        self._dataplane, self._health, self._guard = dataplane, health, lifecycle.guard
        self._max_body = min(LARGE, settings.max_body_bytes)
        self._infer = Infer(lifecycle, dataplane, settings)
        statistics = partial(asyncio.to_thread, dataplane.statistics)
        models = ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")
        self._app = Starlette(
            routes=[
                self._described("/v2", dataplane.server),
                Route("/v2/health/live", self._live),
                Route("/v2/health/ready", self._ready),
                self._described("/v2/models/stats", statistics),
                *(self._described(model, dataplane.metadata) for model in models),
                *(self._described(f"{model}/ready", self._model_ready) for model in models),
                *(self._described(f"{model}/config", dataplane.config) for model in models),
                *(self._described(f"{model}/stats", statistics) for model in models),
                Route("/v2/repository/index", self._index, methods=["POST"]),
                Route("/v2/repository/models/{name}/load", self._load, methods=["POST"]),
                Route("/v2/repository/models/{name}/unload", self._unload, methods=["POST"]),
            ],
            exception_handlers={RequestError: _refuse, HTTPException: _refuse_http, Exception: _fail},
        )
        self._app.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        match scope["path"].split("/"):
            case ["", "v2", "models", _, "infer"] | ["", "v2", "models", _, "versions", _, "infer"] if (
                scope["method"] == "POST"
            ):
                await self._infer(scope, receive, send)
            case _:
                await self._app(scope, receive, send)

    def _described(self, path: str, answer: Callable[..., object]) -> Route:
        """Make a route that answers with what a function, or a coroutine, returns for the names in the path."""

        async def endpoint(request: Request) -> Response:
            self._guard.check(dict(request.scope["headers"]))
            found = answer(**request.path_params)
            return json_response(await found if isawaitable(found) else found)

        return Route(path, endpoint)

    async def _live(self, _: Request) -> Response:
        live = self._health.live
        return json_response({"live": live}, 200 if live else 503)

    async def _ready(self, _: Request) -> Response:
        ready = self._health.ready
        return json_response({"ready": ready}, 200 if ready else 503)

    def _model_ready(self, **model: str) -> dict[str, object]:
        return {"name": self._dataplane.card(**model).name, "ready": True}

    async def _index(self, request: Request) -> Response:
        self._guard.check(dict(request.scope["headers"]))
        asked = await self._body(request, _IndexRequest)
        return json_response(self._dataplane.index(ready=asked.ready))

    async def _load(self, request: Request) -> Response:
        self._guard.check_admin(dict(request.scope["headers"]))
        asked = await self._body(request, _LoadRequest)
        await self._dataplane.load(request.path_params["name"], asked.parameters)
        return json_response({"name": request.path_params["name"], "load": True})

    async def _unload(self, request: Request) -> Response:
        self._guard.check_admin(dict(request.scope["headers"]))
        await self._dataplane.unload(request.path_params["name"])
        return json_response({"name": request.path_params["name"], "unload": True})

    async def _body(self, request: Request, kind: type[BodyT]) -> BodyT:
        body = await read_whole(limited(request.receive, dict(request.scope["headers"]), self._max_body))
        try:
            return msgspec.json.decode(body or b"{}", type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RequestError(Reason.BAD_REQUEST, f"The body is not the JSON that belongs here: {error}") from error


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)  # noqa: S101 - registered for nothing else
    extra = {name.decode(): value.decode() for name, value in headers(error)}
    return json_response(Failure(error.detail), STATUSES[error.reason], extra)


async def _refuse_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for nothing else
    failure = Failure(f"{request.method} {request.url.path[:80]}: {detail_of(error)}")
    return json_response(failure, error.status_code, error.headers)


async def _fail(request: Request, _: Exception) -> Response:
    """Answer after an unexpected error. Starlette raises it again, and uvicorn logs it."""
    return await _refuse(request, internal())
