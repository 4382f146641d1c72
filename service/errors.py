"""The one error that a request can end with.

`service.http.problems` turns it into a status; nothing below HTTP knows one.
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
        """Drop where it was raised, once it is told: those frames hold the body, and the error that holds them.

        Only the garbage collector ends such a cycle, and until then a few hundred refused bodies stay in memory.
        """
        self.__traceback__ = self.__cause__ = self.__context__ = None
