"""Error answers that `connections` sends without the app, before it closes the connection."""

from collections.abc import Callable, Iterable
from http import HTTPStatus

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from service.http.cors import cors_headers, with_cors
from service.http.problems import CONTENT_TYPE, Problem, refusal
from service.settings import read_settings

_RETRY_S = 1
_SETTINGS = read_settings()
_counts: list[Callable[[int, str], None]] = []


def count_by(count: Callable[[int, str], None]) -> None:
    """Let each refusal be counted by its status and reason."""
    _counts[:] = [count]


def counted(problem: Problem) -> None:
    """Count a refusal."""
    for count in _counts:
        count(problem.status, problem.reason)


def written(problem: Problem, request: Iterable[tuple[bytes, bytes]]) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Return the headers and the body of an answer that closes its connection.

    Args:
        problem: the body's content.
        request: the request's headers, which decide the CORS headers.
    """
    headers, body = _plain(problem)
    return headers + cors_headers(_SETTINGS, request), body


def answering(problem: Problem) -> ASGIApp:
    """Make an ASGI app that answers every request with a problem and closes its connection without reading the body."""

    async def answer(_scope: Scope, _receive: Receive, send: Send) -> None:
        headers, body = _plain(problem)
        await send({"type": "http.response.start", "status": problem.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return with_cors(answer, _SETTINGS)


def too_many_connections() -> Problem:
    """Make the problem for a connection above the limit."""
    return refusal(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "too_many_connections",
        f"{_SETTINGS.max_connections} connections are open already. Reuse yours, or try again shortly.",
    )


def too_many_bodies(limit: int) -> Problem:
    """Make the problem for a request whose body would exceed the limit on the bodies of all requests."""
    return refusal(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "too_many_bodies",
        f"The bodies of all current requests have more than {limit} bytes. Try again shortly.",
    )


def _plain(problem: Problem) -> tuple[list[tuple[bytes, bytes]], bytes]:
    body = msgspec.json.encode(problem)
    headers = [(b"content-type", CONTENT_TYPE), (b"content-length", b"%d" % len(body)), (b"connection", b"close")]
    if problem.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.append((b"retry-after", b"%d" % _RETRY_S))
    return headers, body
