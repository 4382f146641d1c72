"""The front door: our routes as a Starlette app, and BentoML's behind them.

Requests for `/v1` never pass BentoML's middlewares: its timeout keeps some twenty objects per request alive for as long
as the timeout lasts, and its tracing halves the throughput of a small request.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from http import HTTPStatus
from typing import get_args

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from service import grpc
from service.errors import Reason, RequestError
from service.http import docs, ui
from service.http.admin import Admin
from service.http.annotate import Annotator
from service.http.connections import FOR_PROBES, SPARE
from service.http.cors import with_cors
from service.http.drain import Drain, closing
from service.http.keys import Guard
from service.http.oip import Oip
from service.http.predict import Predict
from service.http.problems import CONTENT_TYPE, Problem, headers, problem
from service.http.status import Status
from service.http.typed import Typed
from service.models.entry import State
from service.oip.dataplane import Dataplane
from service.runtime import Runtime
from zoo.card import Task

logger = logging.getLogger(__name__)
_TAKE_OVER_S = 15.0  # seconds that a process may load before it takes requests in place of one that died
_HANDSHAKE_S = 10.0
_OTHER_FILES = 256  # that a process has open, beside its connections: models, libraries, the log


def build_app(runtime: Runtime, behind: Starlette) -> ASGIApp:
    """Put the routes of version 1 in front of another app, which gets every request that none of them takes."""
    guard = Guard(runtime.settings.api_keys, runtime.settings.admin_keys)
    annotator = Annotator(runtime.settings)
    predict: dict[str, ASGIApp] = {f"/v1/{task}": Predict(task, runtime, guard, annotator) for task in get_args(Task)}
    predict |= {f"/{task}": Typed(task, runtime, guard, annotator) for task in get_args(Task)}
    drain = Drain(runtime.settings.drain_s)
    status = Status(runtime, drain)
    dataplane = Dataplane(runtime)
    admin = Admin(runtime.repository, status, guard)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        _stay_calm()
        doors = 2 if runtime.settings.grpc_port else 1
        _allow_files(doors * (runtime.settings.max_connections + FOR_PROBES + SPARE) + _OTHER_FILES)
        if runtime.settings.tls_certificate:
            _shorten_handshakes(runtime.settings.receive_s)
        drain.install()
        runtime.start()
        loaded = asyncio.create_task(_loaded(runtime))
        if runtime.replaces:  # its clients wait to be taken in, rather than be told that it is not ready
            await asyncio.wait([loaded], timeout=_TAKE_OVER_S)
        async with behind.router.lifespan_context(behind), grpc.beside(runtime, dataplane, status, guard):
            yield
        runtime.stop()

    app = Starlette(
        routes=[
            *(Route(f"/v1/{task}", predict[f"/v1/{task}"], methods=["POST"]) for task in get_args(Task)),
            Route("/v1/models", status.models),
            Route("/v1/models/reload", admin.reload, methods=["POST"]),
            Route("/v1/models/{name}", status.model),
            Route("/v1/models/{name}/load", admin.load, methods=["POST"]),
            Route("/v1/models/{name}/unload", admin.unload, methods=["POST"]),
            # BentoML's own page there loads a tracker from elsewhere.
            Route("/", lambda _: RedirectResponse("ui/")),
            Route("/livez", status.livez),
            Route("/readyz", status.readyz),
            Route("/metrics", status.metrics),
            *docs.routes(),
            *ui.routes(runtime.repository),
        ],
        exception_handlers={RequestError: _refuse, HTTPException: _refuse_http, Exception: _fail},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.router.default = _Behind(behind)
    oip = Oip(runtime, dataplane, status, guard)
    front = _ShortCut(predict, oip, app if guard.open else _Locked(app, guard), drain)
    return with_cors(front, runtime.settings)


async def _loaded(runtime: Runtime) -> None:
    """Wait until every model is loaded, or is not to be."""
    while any(entry.state is State.LOADING for entry in runtime.repository.entries.values()):
        await asyncio.sleep(0.05)
    runtime.note_loaded()


def _stay_calm() -> None:
    """Keep the event loop from interrupting a run for every packet that arrives: more throughput where cores are full.

    Linux only; the loop still runs at once wherever a core is free.
    """
    if hasattr(os, "SCHED_BATCH"):
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _allow_files(count: int) -> None:
    """Raise this process' limit on open files, as far as it may: 1,024 is usual, and every connection is one."""
    if os.name != "posix":
        return
    import resource  # noqa: PLC0415 - there is none elsewhere

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))
    if hard < count:
        logger.warning("only %d files may be open, too few for ZOOSERVE_MAX_CONNECTIONS", hard)


def _shorten_handshakes(seconds: float) -> None:
    """Let a TLS handshake take no longer than a request: a minute is usual, and uvicorn has no option for it."""
    loop = asyncio.get_running_loop()
    loop.create_server = partial(loop.create_server, ssl_handshake_timeout=min(seconds, _HANDSHAKE_S))  # type: ignore[method-assign]


class _ShortCut:
    """Pictures and /v2 go straight to their endpoints: Starlette's middlewares and router cost as much as a body.

    The endpoints answer every exception themselves. All else, a wrong method included, takes the usual way.
    """

    def __init__(self, endpoints: Mapping[str, ASGIApp], oip: ASGIApp, app: ASGIApp, drain: Drain) -> None:
        self._endpoints = endpoints
        self._oip = oip
        self._app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = None
        if scope["type"] == "http" and scope["method"] == "POST":
            endpoint = self._endpoints.get(scope["path"])
        if endpoint is None and scope["type"] == "http" and (scope["path"] + "/").startswith("/v2/"):
            endpoint = self._oip
        if self._drain.on:
            send = closing(send)
        await (endpoint or self._app)(scope, receive, send)


class _Locked:
    """Lets requests through that bring a key; open are the probes and metrics, the cluster's own, and the page."""

    _OPEN = frozenset({"/", "/livez", "/readyz", "/metrics"}) | ui.OPEN | docs.OPEN

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
    """BentoML's app: its pages, none of which reads a body. What is under /v1 is ours alone."""

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
    return Response(msgspec.json.encode(body), body.status, extra, CONTENT_TYPE.decode())


async def _refuse_http(_: Request, error: Exception) -> Response:
    """A path of ours with a method that it does not take, or one under /v1 that is not there."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for nothing else
    body = Problem(HTTPStatus(error.status_code).phrase, error.status_code, "bad_request", f"{error.detail}.")
    return Response(msgspec.json.encode(body), body.status, error.headers, CONTENT_TYPE.decode())


async def _fail(request: Request, _: Exception) -> Response:
    """A fault of ours, which the server logs."""
    return await _refuse(request, RequestError(Reason.INTERNAL, "The server failed on this request; its log says why."))
