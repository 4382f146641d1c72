"""Endpoints to infer, as plain ASGI apps. `v1` and `v2` derive theirs, and add reading, answering and refusing."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import ClassVar

import msgspec
from starlette.types import Receive, Scope, Send

from service.errors import RequestError
from service.http.context import HttpContext
from service.http.problems import CONTENT_TYPE, headers, problem
from service.request import CLIENT_GONE, Lifecycle


class Endpoint(ABC):
    """One route, and the life of its requests (`service.request`).

    Args:
        lifecycle: what all requests share.
        route: for metrics, log and traces.
        task: of the models that answer; empty: it depends on the model.
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
            said = context.response_headers(len(body))
            await send({"type": "http.response.start", "status": context.status, "headers": said})
            await send({"type": "http.response.body", "body": body})

    @abstractmethod
    async def _answer(self, context: HttpContext, scope: Scope, receive: Receive) -> bytes:
        """Read a request, and return the body of its answer.

        Raises:
            RequestError: there is no answer.
            ClientGone: the client hung up.
        """

    def _refusal(self, context: HttpContext, error: RequestError) -> bytes:
        """Return the body that tells an error."""
        context.content_type = CONTENT_TYPE
        return msgspec.json.encode(problem(error))


def hung_up(receive: Receive) -> Callable[[], Awaitable[None]]:
    """Return a function that returns when the client hangs up. Only once its body was read."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    return watch
