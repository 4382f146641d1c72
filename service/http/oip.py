"""The Open Inference Protocol (KServe V2) over HTTP: everything under `/v2`. `http.app` puts it in front.

To infer takes a short way, as `/v1/<task>` does; all else is Starlette's. Errors are `{"error": "..."}`.
https://github.com/kserve/open-inference-protocol, with Triton's extensions for binary tensor data, the model
repository, the configuration and statistics.
"""

import asyncio
import logging
from http import HTTPStatus
from typing import Any

import msgspec
from msgspec import Struct
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from service.errors import Reason, RequestError
from service.http.body import ClientGone, limited, read_whole
from service.http.exchange import Exchange
from service.http.keys import Guard
from service.http.oip_body import HEADER_LENGTH, LARGE, compressed, decompressed, elements, json_length, parse, render
from service.http.predict import CLIENT_GONE, hung_up
from service.http.problems import STATUS, headers
from service.http.records import Records
from service.http.status import Status
from service.oip.dataplane import Dataplane
from service.runtime import Runtime
from service.waiting import wait

logger = logging.getLogger(__name__)
_STATUS = STATUS | {Reason.BAD_OPTION: 400, Reason.NOT_AN_IMAGE: 400}  # the protocol's own for what a client got wrong
_encode = msgspec.json.Encoder().encode


class Failure(Struct):
    """The body of an error."""

    error: str


class _IndexRequest(Struct):
    ready: bool = False


class _LoadRequest(Struct):
    parameters: dict[str, Any] = {}


class Oip:
    """All routes under `/v2`."""

    def __init__(self, runtime: Runtime, dataplane: Dataplane, status: Status, guard: Guard) -> None:
        self._dataplane, self._status, self._guard = dataplane, status, guard
        self._settings = runtime.settings
        self._max_body = int(runtime.settings.max_body_mb * 1e6)
        self._records = Records(runtime)
        models = ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")
        self._app = Starlette(
            routes=[
                Route("/v2", self._server),
                Route("/v2/health/live", self._live),
                Route("/v2/health/ready", self._ready),
                Route("/v2/models/stats", self._statistics),
                *(Route(model, self._model) for model in models),
                *(Route(f"{model}/ready", self._model_ready) for model in models),
                *(Route(f"{model}/config", self._config) for model in models),
                *(Route(f"{model}/stats", self._statistics) for model in models),
                Route("/v2/repository/index", self._index, methods=["POST"]),
                Route("/v2/repository/models/{name}/load", self._load, methods=["POST"]),
                Route("/v2/repository/models/{name}/unload", self._unload, methods=["POST"]),
            ],
            exception_handlers={RequestError: _refuse, HTTPException: _refuse_http, Exception: _fail},
        )
        self._app.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; every exception ends in a response, and a client that hung up gets none."""
        match scope["path"].split("/"):
            case ["", "v2", "models", name, "infer"] if scope["method"] == "POST":
                await self._infer(name, "", scope, receive, send)
            case ["", "v2", "models", name, "versions", version, "infer"] if scope["method"] == "POST":
                await self._infer(name, version, scope, receive, send)
            case _:
                await self._app(scope, receive, send)

    async def _infer(self, name: str, version: str, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, "/v2/models/{name}/infer")
        task = ""
        try:
            if not self._guard.open:
                self._guard.check(exchange.request_headers)
            model = self._dataplane.model(name, version)
            task, exchange.model = model.card.task, model.card.name
            body = await self._answer(exchange, name, version, receive)
        except ClientGone:
            exchange.status, body = CLIENT_GONE, b""
        except RequestError as error:
            body = _refused(exchange, error)
        except Exception:
            logger.exception("request %s failed", exchange.request_id.decode())
            body = _refused(exchange, _OUR_FAULT)
        if exchange.status != CLIENT_GONE:
            start = {"type": "http.response.start", "status": exchange.status, "headers": exchange.headers(len(body))}
            await send(start)
            await send({"type": "http.response.body", "body": body})
        asyncio.get_running_loop().call_soon(self._records.note, task, exchange)

    async def _answer(self, exchange: Exchange, name: str, version: str, receive: Receive) -> bytes:
        given = exchange.request_headers
        timeout_ms = exchange.timeout_ms(self._settings.timeout_ms)
        # Once more when it is submitted; here it spares reading the body.
        self._dataplane.model(name, version).batcher.check(self._dataplane.deadline(exchange.start, timeout_ms, {}))
        declared = given.get(b"content-length", b"").decode("latin-1") or None
        body = await read_whole(limited(receive, self._max_body, declared))
        body = await decompressed(body, given.get(b"content-encoding", b""), self._max_body)
        length, takes = given.get(HEADER_LENGTH), self._dataplane.takes(name, version)
        if json_length(length, len(body)) > LARGE or (takes.texts > LARGE and len(body) > LARGE):
            call, form = await asyncio.to_thread(parse, body, length, name, version, takes)
        else:
            call, form = parse(body, length, name, version, takes)
        call.started, call.timeout_ms = exchange.start, timeout_ms
        if b"x-request-priority" in given:
            call.parameters = {"priority": exchange.priority().name} | dict(call.parameters)
        del body  # encoded pictures were copied out of it, numbers keep it themselves
        exchange.lap("read")
        submitted = self._dataplane.submit(call)
        if await wait(submitted.jobs, submitted.deadline, hung_up(receive)):
            raise ClientGone
        answer = submitted.answer()
        exchange.answered(submitted.jobs)
        if elements(answer) > LARGE:
            written, ends = await asyncio.to_thread(render, answer, form, self._settings)
        else:
            written, ends = render(answer, form, self._settings)
        if ends is not None:
            exchange.content_type = b"application/octet-stream"
            exchange.extra.append((HEADER_LENGTH, str(ends).encode()))
        written, encoding = await compressed(written, given.get(b"accept-encoding", b""))
        if encoding:
            exchange.extra.append((b"content-encoding", encoding))
        exchange.lap("encode")
        return written

    async def _server(self, request: Request) -> Response:
        self._check(request)
        return _json(self._dataplane.server())

    async def _live(self, request: Request) -> Response:
        status = (await self._status.livez(request)).status_code
        return _json({"live": status == HTTPStatus.OK}, status)

    async def _ready(self, request: Request) -> Response:
        status = (await self._status.readyz(request)).status_code
        return _json({"ready": status == HTTPStatus.OK}, status)

    async def _model(self, request: Request) -> Response:
        self._check(request)
        return _json(self._dataplane.metadata(**request.path_params))

    async def _model_ready(self, request: Request) -> Response:
        self._check(request)
        model = self._dataplane.model(**request.path_params)
        return _json({"name": model.card.name, "ready": True})

    async def _config(self, request: Request) -> Response:
        self._check(request)
        return _json(self._dataplane.config(**request.path_params))

    async def _statistics(self, request: Request) -> Response:
        self._check(request)
        return _json(await asyncio.to_thread(self._dataplane.statistics, **request.path_params))

    async def _index(self, request: Request) -> Response:
        self._check(request)
        asked = await self._body(request, _IndexRequest)
        return _json(self._dataplane.index(ready=asked.ready))

    async def _load(self, request: Request) -> Response:
        self._guard.check_admin(dict(request.scope["headers"]))
        asked = await self._body(request, _LoadRequest)
        await self._dataplane.load(request.path_params["name"], asked.parameters)
        return _json({"name": request.path_params["name"], "load": True})

    async def _unload(self, request: Request) -> Response:
        self._guard.check_admin(dict(request.scope["headers"]))
        await self._dataplane.unload(request.path_params["name"])
        return _json({"name": request.path_params["name"], "unload": True})

    def _check(self, request: Request) -> None:
        if not self._guard.open:
            self._guard.check(dict(request.scope["headers"]))

    async def _body(self, request: Request, kind: type[Any]) -> Any:
        declared = request.headers.get("content-length")
        body = await read_whole(limited(request.receive, min(LARGE, self._max_body), declared))
        try:
            return msgspec.json.decode(body or b"{}", type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RequestError(Reason.BAD_REQUEST, f"The body is not the JSON that belongs here: {error}") from error


_OUR_FAULT = RequestError(Reason.INTERNAL, "The server failed on this request; its log says why.")


def _refused(exchange: Exchange, error: RequestError) -> bytes:
    exchange.status, exchange.refusal = _STATUS[error.reason], error.reason
    exchange.extra = headers(error)
    exchange.content_type = b"application/json"
    error.forget()
    return _encode(Failure(error.detail))


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)  # noqa: S101 - registered for nothing else
    extra = {name.decode(): value.decode() for name, value in headers(error)}
    return _json(Failure(error.detail), _STATUS[error.reason], extra)


async def _refuse_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for nothing else
    return _json(
        Failure(f"{request.method} {request.url.path[:80]}: {error.detail}."), error.status_code, error.headers
    )


async def _fail(request: Request, _: Exception) -> Response:
    """A fault of ours, which the server logs."""
    return await _refuse(request, _OUR_FAULT)


def _json(body: Any, status: int = 200, extra: Any = None) -> Response:
    return Response(_encode(body), status, extra, "application/json")
