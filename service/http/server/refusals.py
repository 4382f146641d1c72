"""Problems that a connection sends without the app, before it closes. `connections` sends them."""

from collections.abc import Iterable
from http import HTTPStatus

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from service.http.cors import cors_headers, with_cors
from service.http.problems import CONTENT_TYPE, Problem
from service.http.server.heads import refusal
from service.settings import read_settings

_RETRY_S = 1
_SETTINGS = read_settings()


def written(problem: Problem, request: Iterable[tuple[bytes, bytes]]) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Return headers and body of an answer that closes its connection, to a request with the headers given."""
    headers, body = _plain(problem)
    return headers + cors_headers(_SETTINGS, request), body


def answering(problem: Problem) -> ASGIApp:
    """Make an app that answers every request with a problem, and closes its connection without reading the body."""

    async def answer(_scope: Scope, _receive: Receive, send: Send) -> None:
        headers, body = _plain(problem)
        await send({"type": "http.response.start", "status": problem.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return with_cors(answer, _SETTINGS)


def too_many_connections() -> Problem:
    """The connection limit is reached."""
    return refusal(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "too_many_connections",
        f"{_SETTINGS.max_connections} connections are open already. Reuse yours, or try again shortly.",
    )


def too_many_bodies(limit: int) -> Problem:
    """The bodies of all requests are too large together."""
    return refusal(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "too_many_bodies",
        f"The bodies of all requests under way have more than {limit} bytes. Try again shortly.",
    )


def _plain(problem: Problem) -> tuple[list[tuple[bytes, bytes]], bytes]:
    body = msgspec.json.encode(problem)
    headers = [(b"content-type", CONTENT_TYPE), (b"content-length", b"%d" % len(body)), (b"connection", b"close")]
    if problem.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.append((b"retry-after", b"%d" % _RETRY_S))
    return headers, body
