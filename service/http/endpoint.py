"""The base class of HTTP inference endpoints, plain ASGI apps. `v1` and `v2` add how bodies are read and written."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from math import inf
from typing import ClassVar
from urllib.parse import parse_qsl

import msgspec
from starlette.types import Message, Receive, Scope, Send

from service.engine.job import Priority
from service.errors import ClientGone, Reason, RequestError
from service.http.problems import CONTENT_TYPE, headers, problem
from service.request import CLIENT_GONE, Lifecycle, RequestContext

_MAX_OPTIONS = 64
_QUERIES = 64  # that are remembered: most requests of a client have the same


class HttpContext(RequestContext):
    """One inference request over HTTP; see `RequestContext`.

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
        """Read deadline and priority from the headers `X-Request-Timeout-Ms` and `X-Request-Priority`.

        Raises:
            RequestError: `bad_option`: one of them is invalid.
        """
        timeout = self.headers.get(b"x-request-timeout-ms")
        if timeout is not None:
            self.deadline = min(self.deadline, self.start + _milliseconds(timeout) / 1000)
        priority = self.headers.get(b"x-request-priority")
        if priority is not None:
            self.priority = _priority(priority.decode("latin-1"))

    def params(self) -> dict[str, str]:
        """Return the parameters of the query string; if a name is repeated, its last value counts.

        Raises:
            RequestError: `bad_option`: there are too many.
        """
        try:
            return dict(_fields_of(self._query))
        except ValueError:
            raise RequestError(Reason.BAD_OPTION, f"The query has more than {_MAX_OPTIONS} options.") from None

    def response_headers(self, length: int) -> list[tuple[bytes, bytes]]:
        """Return all headers of an answer whose body has `length` bytes."""
        return [
            (b"content-type", self.content_type),
            (b"content-length", str(length).encode()),
            (b"server-timing", self.server_timing()),
            (b"x-request-id", self.request_id),
            *self.extra,
        ]


class Endpoint(ABC):
    """One route. `service.request` describes the stages of a request.

    Args:
        lifecycle: shared by all requests.
        route: for metrics, log and traces.
        task: of the route's models; empty if it has models of several tasks.
    """

    context: ClassVar[type[HttpContext]] = HttpContext

    def __init__(self, lifecycle: Lifecycle, route: str, task: str = "") -> None:
        self._lifecycle, self._route, self._task = lifecycle, route, task

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Every error becomes a response; a client that hung up gets none."""
        body = b""
        with self.context(self._lifecycle, scope, self._route, self._task) as context:
            context.check_key()
            context.read_head()
            body = await self._answer(context, scope, receive)
        if context.error is not None:
            context.extra = headers(context.error)
            body = self._refusal(context, context.error)
        if context.status != CLIENT_GONE:
            answered = context.response_headers(len(body))
            await send({"type": "http.response.start", "status": context.status, "headers": answered})
            await send({"type": "http.response.body", "body": body})

    @abstractmethod
    async def _answer(self, context: HttpContext, scope: Scope, receive: Receive) -> bytes:
        """Read a request and return the body of its answer.

        Raises:
            RequestError: the request is refused or failed.
            ClientGone: the client hung up.
        """

    def _refusal(self, context: HttpContext, error: RequestError) -> bytes:
        """Return the body of the answer to a request that ended with an error."""
        context.content_type = CONTENT_TYPE
        return msgspec.json.encode(problem(error))


def hung_up(receive: Receive) -> Callable[[], Awaitable[None]]:
    """Return a function that waits until the client hangs up. Call it only after the body was read."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    return watch


def limited(receive: Receive, headers: Mapping[bytes, bytes], limit: int) -> Receive:
    """Wrap an ASGI `receive` so that a body of more than `limit` bytes is refused as soon as that is known.

    Raises:
        RequestError: `too_large`, at once if Content-Length is above the limit, else while reading.
    """

    def refuse(size: str) -> RequestError:
        return RequestError(
            Reason.TOO_LARGE,
            f"The body has {size} bytes; the limit is {limit}. Send a smaller image, or fewer at once.",
        )

    declared = headers.get(b"content-length", b"")
    if declared.isdigit():
        if int(declared) > limit:
            raise refuse(declared.decode())
        return receive  # the parser lets no more arrive than is declared
    seen = 0

    async def receive_limited() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise refuse(f"more than {limit}")
        return message

    return receive_limited


async def read_whole(receive: Receive) -> bytes:
    """Read a whole body; raises `ClientGone` if the client hangs up before its end."""
    chunks = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


@lru_cache(_QUERIES)
def _fields_of(query: bytes) -> list[tuple[str, str]]:
    """Return names and values of a query string; raises ValueError if there are too many."""
    return parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=_MAX_OPTIONS)


def _milliseconds(given: bytes) -> float:
    with suppress(ValueError):
        if b"_" not in given and 0 < (value := float(given)) < inf:
            return value
    text = given[:80].decode("latin-1")
    raise RequestError(Reason.BAD_OPTION, f"X-Request-Timeout-Ms: {text}: expected a number of milliseconds above 0.")


def _priority(given: str) -> Priority:
    try:
        return Priority[given.upper()]
    except KeyError:
        raise RequestError(
            Reason.BAD_OPTION, f"X-Request-Priority: {given[:80]}: expected one of `high`, `normal`, `low`."
        ) from None
