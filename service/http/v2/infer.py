"""`POST /v2/models/NAME/infer` and `.../versions/VERSION/infer`: inference by the Open Inference Protocol."""

import asyncio
from collections.abc import Mapping
from typing import ClassVar

import msgspec
import numpy as np
from msgspec import Struct
from starlette.types import Receive, Scope

from service.errors import Reason, RequestError
from service.http import media
from service.http.endpoint import Endpoint, HttpContext, hung_up, limited, read_whole
from service.http.media import media_type, one_image_only, wanted
from service.http.v2.body import HEADER_LENGTH, LARGE, Form, elements, json_length, parse, render
from service.http.v2.compression import compressed, decompressed
from service.limits import Bodies, Share
from service.models.inputs import PNG
from service.oip.dataplane import Dataplane
from service.oip.describe import IMAGE
from service.oip.messages import Answer, Call
from service.oip.tensors import bad
from service.request import STATUS, Lifecycle
from service.settings import Settings
from service.waiting import wait

STATUSES: Mapping[Reason, int] = {**STATUS, Reason.BAD_OPTION: 400, Reason.NOT_AN_IMAGE: 400}
"""The protocol has status 400 for all invalid requests."""


class Failure(Struct):
    """The body of an error."""

    error: str


class _Context(HttpContext):
    __slots__ = ()
    statuses: ClassVar[Mapping[Reason, int]] = STATUSES


class Infer(Endpoint):
    """The endpoint of all models."""

    context = _Context

    def __init__(self, lifecycle: Lifecycle, dataplane: Dataplane, settings: Settings) -> None:
        super().__init__(lifecycle, "/v2/models/{name}/infer")
        self._dataplane, self._settings = dataplane, settings
        self._decompressed = Bodies(int(1e6 * settings.max_bodies_mb))

    async def _answer(self, context: HttpContext, scope: Scope, receive: Receive) -> bytes:
        share = Share(self._decompressed, "Decompressed, the bodies of all current requests are")
        try:
            return await self._infer(context, scope, receive, share)
        finally:
            share.end()

    async def _infer(self, context: HttpContext, scope: Scope, receive: Receive, share: Share) -> bytes:
        name, version = model_of(scope["path"])
        await self._dataplane.admit(context, name, version)
        headers = context.headers
        body = await read_whole(limited(receive, headers, self._settings.max_body_bytes))
        body = await decompressed(body, headers.get(b"content-encoding", b""), self._settings.max_body_bytes, share)
        length, takes = headers.get(HEADER_LENGTH), self._dataplane.takes(name, version)
        as_png = _wants_png(headers.get(b"accept", b""))
        if media_type(headers).startswith("image/"):
            call, form = _image_call(body, name, version, scope["query_string"]), Form(False, {})
        elif json_length(length, len(body)) > LARGE or (takes.texts > LARGE and len(body) > LARGE):
            call, form = await asyncio.to_thread(parse, body, length, name, version, takes)
        else:
            call, form = parse(body, length, name, version, takes)
        call.started, call.deadline, call.priority = context.start, context.deadline, context.priority
        del body  # encoded images are copies; arrays of numbers refer to it as long as they need it
        if as_png:
            if (count := len(next(iter(call.inputs.values())))) > 1:
                raise one_image_only(media.PNG, count, f"ask for the output `{PNG}` as binary data")
            call.outputs = (PNG,)
        elif PNG in takes.outputs(call) and not form.binary(PNG):
            raise bad(f"The output `{PNG}` is no text: send `Accept: image/png`, or ask for it as binary data.")
        context.lap("read")
        submitted = self._dataplane.submit(call)
        await wait(submitted.jobs, submitted.deadline, hung_up(receive))
        answer = submitted.answer()
        context.answered(submitted.jobs)
        if as_png:
            return self._png(context, answer)
        if elements(answer) > LARGE:
            written, json_end = await asyncio.to_thread(render, answer, form, self._settings)
        else:
            written, json_end = render(answer, form, self._settings)
        if json_end is not None:
            context.content_type = b"application/octet-stream"
            context.extra.append((HEADER_LENGTH, str(json_end).encode()))
        written, encoding = await compressed(written, headers.get(b"accept-encoding", b""))
        if encoding:
            context.extra.append((b"content-encoding", encoding))
        context.lap("encode")
        return written

    def _png(self, context: HttpContext, answer: Answer) -> bytes:
        """Answer with the encoded image itself, where one was asked for."""
        context.content_type = media.PNG
        context.lap("encode")
        image: bytes = answer.outputs[PNG][0]
        return image

    def _refusal(self, context: HttpContext, error: RequestError) -> bytes:
        context.content_type = b"application/json"
        return msgspec.json.encode(Failure(error.detail))


def _image_call(body: bytes, name: str, version: str, query: bytes) -> Call:
    """Make the call of an image that is the whole body."""
    if query:
        raise RequestError(
            Reason.BAD_OPTION,
            f"`?{query[:80].decode('latin-1')}`: there are no options in the address here. Send the image "
            "in JSON, with `parameters`, or ask /v1.",
        )
    return Call(name, {IMAGE: np.array([body], object)}, version)


def _wants_png(accept: bytes) -> bool:
    # Other types are not refused: clients of the protocol name some that they do not need.
    return b"image/" in accept.lower() and wanted(accept, (media.JSON, media.PNG)) == media.PNG


def model_of(path: str) -> tuple[str, str]:
    """Return the name and the version (empty: any) of the model in an inference request's path."""
    parts = path.split("/")
    return parts[3], parts[5] if len(parts) > 5 else ""
