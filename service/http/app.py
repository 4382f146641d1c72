"""The HTTP server's ASGI app: our routes, with BentoML's app as the fallback.

Inference requests pass neither BentoML's middlewares nor Starlette's. BentoML's timeout keeps about twenty objects per
request alive for as long as the timeout lasts, and its tracing halves the throughput of small requests. Starlette's
middlewares and router take as much time as reading the body.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import RequestError, internal
from service.health import Drain, Health
from service.http.cors import with_cors
from service.http.docs import routes as docs
from service.http.media import json_response
from service.http.ops.models import ModelRoutes
from service.http.ops.pipelines import PipelineRoutes
from service.http.ops.probes import OPEN, Probes
from service.http.problems import CONTENT_TYPE, detail_of, headers, problem, refusal
from service.http.ui import routes as ui
from service.http.v1.annotate import Annotator
from service.http.v1.pipelines import PATH, PipelineEndpoint, TypedPipeline
from service.http.v1.predict import Predict, Typed
from service.http.v2.routes import OpenInference
from service.keys import Guard
from service.oip.dataplane import Dataplane
from service.request import Lifecycle
from service.runtime import Runtime
from service.tasks import TASKS

Lifespan = Callable[[Starlette], AbstractAsyncContextManager[None]]


def build_app(
    runtime: Runtime, lifecycle: Lifecycle, dataplane: Dataplane, health: Health, behind: Starlette, lifespan: Lifespan
) -> ASGIApp:
    """Put our routes in front of another app, which gets every request that matches none of them.

    Args:
        runtime: of this process.
        lifecycle: shared by all requests.
        dataplane: answers `/v2`.
        health: answers the probes.
        behind: BentoML's app.
        lifespan: a context manager that is entered before the first request and left when the app ends.
    """
    settings, guard, annotator = runtime.settings, lifecycle.guard, Annotator(runtime.settings)
    endpoints: dict[str, ASGIApp] = {}
    for task in TASKS:
        for path, endpoint in ((f"/v1/{task}", Predict), (f"/{task}", Typed)):
            endpoints[path] = endpoint(task, path, lifecycle, runtime, annotator)
    endpoints["/pipeline"] = TypedPipeline("/pipeline", lifecycle, runtime, annotator)
    endpoints[PATH] = PipelineEndpoint(f"{PATH}{{name}}", lifecycle, runtime, annotator)
    app = Starlette(
        routes=[
            *(Route(f"/v1/{task}", endpoints[f"/v1/{task}"], methods=["POST"]) for task in TASKS),
            *PipelineRoutes(runtime.pipelines).routes(),
            *ModelRoutes(runtime, guard).routes(),
            *Probes(runtime, health).routes(),
            # BentoML's own page at `/` loads a tracker from another host.
            Route("/", lambda _: RedirectResponse("ui/")),
            *docs.routes(),
            *ui.routes(runtime.repository),
        ],
        exception_handlers={RequestError: _refuse, HTTPException: _refuse_http, Exception: _fail},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    behind.router.redirect_slashes = False  # to `http://`, which may not be what a proxy in front speaks
    app.router.default = _Behind(behind)
    oip = OpenInference(lifecycle, dataplane, health, settings)
    dispatcher = _Dispatcher(endpoints, oip, app if guard.open else _Locked(app, guard), health.drain)
    return with_cors(dispatcher, settings)


class _Dispatcher:
    """Passes inference requests, and all of /v2, directly to their endpoints, and the rest to Starlette's app.

    The endpoints answer every error themselves. Starlette's app also answers requests with a wrong method.
    """

    def __init__(self, endpoints: dict[str, ASGIApp], oip: ASGIApp, app: ASGIApp, drain: Drain) -> None:
        self._endpoints, self._oip, self._app, self._drain = endpoints, oip, app, drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = None
        if scope["type"] == "http" and scope["method"] == "POST":
            path = scope["path"]
            endpoint = self._endpoints.get(PATH if path.startswith(PATH) else path)
        if endpoint is None and scope["type"] == "http" and (scope["path"] + "/").startswith("/v2/"):
            endpoint = self._oip
        if self._drain.on:
            send = _closing(send)
        await (endpoint or self._app)(scope, receive, send)


def _closing(send: Send) -> Send:
    """Wrap an ASGI `send` so that the answer closes its connection."""

    async def send_and_close(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"connection", b"close")]
        await send(message)

    return send_and_close


class _Locked:
    """Requires a key for every path except the probes, the metrics and the pages."""

    _OPEN = frozenset({"/"}) | OPEN | ui.OPEN | docs.OPEN

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app = app
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in self._OPEN:
            try:
                self._guard.check(dict(scope["headers"]))
            except RequestError as error:
                await (await _refuse(Request(scope), error))(scope, receive, send)
                return
        await self._app(scope, receive, send)


class _Behind:
    """BentoML's app, except for paths under /v1, which are all ours. None of its pages reads a body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/v1/"):
            raise HTTPException(404, f"There is no {scope['path'][:80]}; /v1/models lists the models")
        await self._app(scope, receive, send)


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)  # noqa: S101 - registered for nothing else
    body = problem(error)
    extra = {name.decode(): value.decode() for name, value in headers(error)}
    return json_response(body, body.status, extra, CONTENT_TYPE)


async def _refuse_http(_: Request, error: Exception) -> Response:
    """Answer a request with a wrong method for one of our paths, or for an unknown path under /v1."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for nothing else
    body = refusal(HTTPStatus(error.status_code), "bad_request", detail_of(error))
    return json_response(body, body.status, error.headers, CONTENT_TYPE)


async def _fail(request: Request, _: Exception) -> Response:
    """Answer after an unexpected error. Starlette raises it again, and uvicorn logs it."""
    return await _refuse(request, internal())
