"""Errors as `application/problem+json` (RFC 9457): the one place where a reason becomes a status."""

from http import HTTPStatus
from math import ceil

import msgspec

from service.errors import Reason, RequestError

STATUS = {
    Reason.UNDECODABLE: 400,
    Reason.BAD_REQUEST: 400,
    Reason.UNAUTHORISED: 401,
    Reason.FORBIDDEN: 403,
    Reason.UNKNOWN_MODEL: 404,
    Reason.NOT_ACCEPTABLE: 406,
    Reason.REFUSED: 409,
    Reason.TOO_LARGE: 413,
    Reason.NOT_AN_IMAGE: 415,
    Reason.BAD_OPTION: 422,
    Reason.QUEUE_FULL: 429,
    Reason.INTERNAL: 500,
    Reason.NOT_READY: 503,
    Reason.DEADLINE: 504,
}
CONTENT_TYPE = b"application/problem+json"


class Problem(msgspec.Struct, frozen=True):
    """The body of an error. `type` is `about:blank`, as RFC 9457 has it where the status says the kind."""

    title: str
    status: int
    reason: str
    detail: str
    type: str = "about:blank"


def problem(error: RequestError) -> Problem:
    """Describe an error to a client."""
    status = STATUS[error.reason]
    return Problem(HTTPStatus(status).phrase, status, error.reason.value, error.detail)


def headers(error: RequestError) -> list[tuple[bytes, bytes]]:
    """Headers that go with an error: `Retry-After` where trying again makes sense, the scheme where a key is due."""
    if error.reason is Reason.UNAUTHORISED:
        return [(b"www-authenticate", b"Bearer")]
    if error.retry_after is None:
        return []
    return [(b"retry-after", str(ceil(error.retry_after)).encode())]
