"""The errors with which a request can end.

`http.problems` maps a `RequestError` to a status of HTTP, `grpc.refusals` to one of gRPC.
"""

import logging
from enum import StrEnum

logger = logging.getLogger(__name__)


class Reason(StrEnum):
    """Why a request was refused or failed. A closed set: it is also a metric label."""

    UNDECODABLE = "undecodable"
    NOT_AN_IMAGE = "not_an_image"
    TOO_LARGE = "too_large"
    BAD_REQUEST = "bad_request"
    BAD_OPTION = "bad_option"
    UNKNOWN_MODEL = "unknown_model"
    NOT_ACCEPTABLE = "not_acceptable"
    QUEUE_FULL = "queue_full"
    NOT_READY = "not_ready"
    DEADLINE = "deadline"
    INTERNAL = "internal"
    UNAUTHORISED = "unauthorised"
    FORBIDDEN = "forbidden"
    REFUSED = "refused"


SERVERS_OWN = frozenset({Reason.QUEUE_FULL, Reason.NOT_READY, Reason.DEADLINE, Reason.INTERNAL})
"""Reasons that do not lie in the request."""


class ClientGone(Exception):  # noqa: N818 - an event, not an error
    """The client hung up before its request was read, or before the answer was ready."""


class RequestError(Exception):
    """A request that cannot be answered.

    Attributes:
        reason: what kind of failure it is.
        detail: one or two sentences for the caller: what was wrong, what was expected, what to do next.
        retry_after: seconds after which trying again makes sense, for `queue_full` and `not_ready`.
    """

    def __init__(self, reason: Reason, detail: str, *, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.retry_after = retry_after

    def forget(self) -> None:
        """Remove the traceback, whose frames refer to the request's body and to the error: a reference cycle.

        Otherwise hundreds of refused bodies would stay in memory until the garbage collector runs.
        """
        self.__traceback__ = self.__cause__ = self.__context__ = None


def internal(what: str = "request") -> RequestError:
    """Return the error of what failed by a bug of ours, which only the log describes."""
    return RequestError(Reason.INTERNAL, f"The server failed on this {what}; its log says why.")


def refusal_of(error: BaseException, what: str = "request") -> RequestError:
    """Return an error for a client. One that is no `RequestError` is a bug: it is logged, and `internal` returned."""
    if isinstance(error, RequestError):
        return error
    logger.error("the %s failed", what, exc_info=error)
    return internal(what)
