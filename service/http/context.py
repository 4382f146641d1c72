"""A request of HTTP: what its head says, and the headers of its answer."""

from collections.abc import Mapping
from urllib.parse import parse_qsl

from starlette.types import Scope

from service.engine.job import Priority
from service.errors import Reason, RequestError
from service.request import Lifecycle, RequestContext

_MAX_OPTIONS = 64


class HttpContext(RequestContext):
    """One request of HTTP to infer; see `RequestContext`.

    Attributes:
        content_type: of the answer.
        extra: further headers of the answer.
    """

    __slots__ = ("_query", "content_type", "extra")

    def __init__(self, lifecycle: Lifecycle, scope: Scope, route: str, task: str = "") -> None:
        headers: Mapping[bytes, bytes] = dict(scope["headers"])
        super().__init__(lifecycle, headers, route, task)
        self._query: bytes = scope["query_string"]
        self.content_type = b"application/json"
        self.extra: list[tuple[bytes, bytes]] = []

    def read_head(self) -> None:
        """Take deadline and priority from the head: `X-Request-Timeout-Ms` and `X-Request-Priority`.

        Raises:
            RequestError: `bad_option`.
        """
        timeout = self.headers.get(b"x-request-timeout-ms")
        if timeout is not None:
            self.deadline = min(self.deadline, self.start + _milliseconds(timeout) / 1000)
        priority = self.headers.get(b"x-request-priority")
        if priority is not None:
            self.priority = _priority(priority.decode("latin-1"))

    def params(self) -> dict[str, str]:
        """Parameters of the query string; of those with one name the last counts.

        Raises:
            RequestError: `bad_option`: there are too many.
        """
        if not self._query:
            return {}
        try:
            query = self._query.decode("latin-1")
            return dict(parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_OPTIONS))
        except ValueError:
            raise RequestError(Reason.BAD_OPTION, f"The query has more than {_MAX_OPTIONS} options.") from None

    def response_headers(self, length: int) -> list[tuple[bytes, bytes]]:
        """Return all headers of the answer, whose body has so many bytes."""
        return [
            (b"content-type", self.content_type),
            (b"content-length", str(length).encode()),
            (b"server-timing", self.server_timing()),
            (b"x-request-id", self.request_id),
            *self.extra,
        ]


def _milliseconds(given: bytes) -> float:
    try:
        value = float(given)
    except ValueError:
        value = 0.0
    if not value > 0:
        text = given[:80].decode("latin-1")
        raise RequestError(
            Reason.BAD_OPTION, f"X-Request-Timeout-Ms: {text}: expected a number of milliseconds above 0."
        )
    return value


def _priority(given: str) -> Priority:
    try:
        return Priority[given.upper()]
    except KeyError:
        raise RequestError(
            Reason.BAD_OPTION, f"X-Request-Priority: {given[:80]}: expected one of `high`, `normal`, `low`."
        ) from None
