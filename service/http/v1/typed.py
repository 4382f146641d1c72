"""`POST /classify`, `/detect` and `/segment`: BentoML's typed endpoints, answered as `/v1` answers.

BentoML describes them (its Swagger page, its clients' schema) and would read their bodies with pydantic, on the event
loop, without a limit. Here they have the life of every other request: limits, deadline, metrics, log and trace.
"""

from contextlib import suppress

import msgspec
from starlette.types import Receive, Scope

from service.errors import Reason, RequestError
from service.http.body import limited_by
from service.http.context import HttpContext
from service.http.v1.images import media_type, read_form
from service.http.v1.predict import Predict

_FORM = "multipart/form-data"


class Typed(Predict):
    """The endpoint of one task; its options are fields of the form, each as JSON or as plain text."""

    async def _answer(self, context: HttpContext, scope: Scope, receive: Receive) -> bytes:  # noqa: ARG002 - as declared
        headers = context.headers
        if (kind := media_type(headers)) != _FORM:
            raise RequestError(
                Reason.NOT_AN_IMAGE,
                f"Content-Type `{kind[:80] or 'none'}` is not served here: expected {_FORM}, with the image as `image` "
                f"and options as fields. /v1/{self._task} takes the image itself, and JSON.",
            )
        form = await read_form(limited_by(self._settings, receive, headers), headers, 1)
        context.lap("read")
        model, version = (_text(form.fields.pop(name, None)) for name in ("model", "version"))
        params = {name: _value(text) for name, text in form.fields.items()}
        return await self._run(context, receive, self._query(context, model, version, params), form.images, b"")


def _value(text: str) -> object:
    """Read a field: BentoML's client writes JSON, people write text."""
    with suppress(msgspec.DecodeError, RecursionError):
        return msgspec.json.decode(text)
    return text


def _text(field: str | None) -> str | None:
    """Read a field whose value is text, also where it looks like a number."""
    value = None if field is None else _value(field)
    return value if isinstance(value, str) else field
