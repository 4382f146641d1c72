"""Errors as `application/problem+json` (RFC 9457)."""

from http import HTTPStatus
from math import ceil

import msgspec
from starlette.exceptions import HTTPException

from service.errors import Reason, RequestError
from service.request import STATUS

CONTENT_TYPE = b"application/problem+json"


class Problem(msgspec.Struct, frozen=True):
    """The body of an error. `type` is `about:blank`: by RFC 9457, the status then defines the kind of problem."""

    title: str
    status: int
    reason: str
    detail: str
    type: str = "about:blank"


def refusal(status: HTTPStatus, reason: str, detail: str) -> Problem:
    """Describe to a client why a request is refused."""
    return Problem(status.phrase, status.value, reason, detail)


def problem(error: RequestError) -> Problem:
    """Describe an error to a client."""
    return refusal(HTTPStatus(STATUS[error.reason]), error.reason.value, error.detail)


def detail_of(error: HTTPException) -> str:
    """Say what is wrong with a request's path or its method, and which methods there are."""
    allowed = (error.headers or {}).get("Allow")
    return f"{error.detail}; use {allowed}." if allowed else f"{error.detail}."


def headers(error: RequestError) -> list[tuple[bytes, bytes]]:
    """Headers of an error: `Retry-After` if a retry may succeed, `WWW-Authenticate` if a key is missing."""
    if error.reason is Reason.UNAUTHORISED:
        return [(b"www-authenticate", b"Bearer")]
    if error.retry_after is None:
        return []
    return [(b"retry-after", str(ceil(error.retry_after)).encode())]
