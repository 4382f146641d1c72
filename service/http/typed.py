"""`POST /classify`, `/detect` and `/segment`: BentoML's typed endpoints, answered as `/v1` answers.

BentoML describes them (its Swagger page, its clients' schema) and would read their bodies with pydantic, on the event
loop, without a limit. Here they have the life of every other request: limits, deadline, metrics, log and trace.
"""

from contextlib import suppress
from typing import Any

import msgspec
from starlette.types import Receive

from service.errors import Reason, RequestError
from service.http.annotate import Annotator
from service.http.body import kind_of, limited_by, read_form
from service.http.exchange import Exchange
from service.http.keys import Guard
from service.http.predict import Predict
from service.predictor import deadline_after
from service.runtime import Runtime
from zoo.card import Task

_KIND = "multipart/form-data"
_NAMES = frozenset({"model", "version"})  # whose values are text, also where they look like a number


class Typed(Predict):
    """The endpoint of one task; its options are fields of the form, each as JSON or as plain text."""

    def __init__(self, task: Task, runtime: Runtime, guard: Guard, annotator: Annotator) -> None:
        super().__init__(task, runtime, guard, annotator)
        self._route = f"/{task}"

    async def _answer(self, exchange: Exchange, receive: Receive) -> bytes:
        headers = exchange.request_headers
        if (kind := kind_of(headers)) != _KIND:
            raise RequestError(
                Reason.NOT_AN_IMAGE,
                f"Content-Type `{kind[:80] or 'none'}` is not served here: expected {_KIND}, with the image as `image` "
                f"and options as fields. /v1/{self._task} takes the image itself, and JSON.",
            )
        deadline = deadline_after(exchange.timeout_ms(self._settings.timeout_ms))
        form = await read_form(limited_by(self._settings, receive, headers), headers, 1)
        exchange.lap("read")
        words = {name: _value(text) for name, text in form.fields.items()}
        for name in words.keys() & _NAMES:
            words[name] = words[name] if isinstance(words[name], str) else form.fields[name]
        return await self._run(exchange, receive, self._ask(exchange, words, deadline), form.images, b"")


def _value(text: str) -> Any:
    """Read a field: BentoML's client writes JSON, people write text."""
    with suppress(msgspec.DecodeError, RecursionError):
        return msgspec.json.decode(text)
    return text
