"""What a call can end with instead of an answer. Raised by the clients; `predict_many` yields them in their place."""


class ZooserveError(Exception):
    """A call without an answer; itself where the server refused or failed, else one of the classes below.

    Attributes:
        detail: one or two sentences: what was wrong, what was expected, what to do next.
        reason: a word to act on, such as `undecodable`, `bad_option`, `unknown_model` or `queue_full`; empty where a
            proxy answered that knows none.
        status: of the HTTP response; None where there was none.
        retry_after: seconds after which the server said that trying again makes sense.
        request_id: by which the server's log knows the call.
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
    """No connection, or one that broke before the answer was there."""


class ImageError(ZooserveError):
    """An image that could not be read here, so that nothing was sent."""
