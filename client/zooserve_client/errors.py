"""Errors of calls. The clients raise them; `predict_many` yields them instead."""


class ZooserveError(Exception):
    """A call without an answer. The base class means that the server refused or failed; see also its subclasses.

    Attributes:
        detail: one or two sentences: what was wrong, what was expected, what to do next.
        reason: a word for programs, such as `undecodable`, `bad_option`, `unknown_model` or `queue_full`; empty if a
            proxy answered.
        status: of the HTTP response; None without a response.
        retry_after: seconds after which a retry makes sense, as the server said.
        request_id: of the call in the server's log.
    """

    def __init__(
        self,
        detail: str,
        reason: str = "",
        status: int | None = None,
        retry_after: float | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(detail, reason, status, retry_after, request_id)
        self.detail = detail
        self.reason = reason
        self.status = status
        self.retry_after = retry_after
        self.request_id = request_id

    def __str__(self) -> str:
        kind = " ".join(str(part) for part in (self.status, self.reason) if part)
        return f"{kind}: {self.detail}" if kind else self.detail


class DeadlineError(ZooserveError):
    """The deadline passed, here or (status 504) in the server."""


class UnreachableError(ZooserveError):
    """There was no connection, or it broke before the answer had arrived."""


class ImageError(ZooserveError):
    """An image could not be read, and was not sent."""
