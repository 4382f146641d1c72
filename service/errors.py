"""The errors with which a request can end.

`http.problems` maps a `RequestError` to a status of HTTP, `grpc.refusals` to one of gRPC.
"""

from enum import StrEnum


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
