"""From a request's body to its pictures: raw bytes, multipart, or JSON with base64. Limits hold while it is read."""

import base64
import binascii
from collections.abc import Mapping

import msgspec
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive, Scope

from service.errors import Reason, RequestError
from service.settings import Settings

# Parts stay in memory, where the limit on bodies holds: a disk may be full or read-only, and keeps what it was given.
MultiPartParser.spool_max_size = 1 << 40


class ClientGone(Exception):  # noqa: N818 - an event, not a fault
    """The client hung up while its body was read."""


class Images(msgspec.Struct):
    """The JSON form of a body: pictures in base64, at least one."""

    images: list[str]


def limited(receive: Receive, limit: int, declared: str | None) -> Receive:
    """Wrap an ASGI `receive` so that a body of more than `limit` bytes is refused as soon as that is known.

    Raises:
        RequestError: `too_large`, at once where Content-Length says so, else while reading.
    """

    def refuse(size: str) -> RequestError:
        return RequestError(
            Reason.TOO_LARGE,
            f"The body has {size} bytes; the limit is {limit}. Send a smaller picture, or fewer at once.",
        )

    if declared is not None and declared.isdigit() and int(declared) > limit:
        raise refuse(declared)
    seen = 0

    async def receive_limited() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise refuse(f"more than {limit}")
        return message

    return receive_limited


async def read_pictures(
    scope: Scope, receive: Receive, headers: Mapping[bytes, bytes], settings: Settings
) -> list[bytes | RequestError]:
    """Read the body and take the pictures out of it, by the declared content type.

    A picture among several whose base64 is broken is an error in its place.

    Raises:
        RequestError: too large, compressed, not a picture's type, no picture, too many, or not the format that was
            declared.
        ClientGone: the body ended before it was complete.
    """
    receive = limited(receive, int(settings.max_body_mb * 1e6), headers.get(b"content-length", b"").decode() or None)
    if (coding := headers.get(b"content-encoding", b"identity").strip().lower()) != b"identity":
        raise RequestError(
            Reason.NOT_AN_IMAGE,
            f"Content-Encoding `{coding[:80].decode('latin-1')}` is not served. Send the body as it is: pictures are "
            "compressed already.",
        )
    kind = headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
    pictures: list[bytes | RequestError]
    if kind == "multipart/form-data":
        pictures = await _from_multipart(scope, receive, settings.max_images)
    elif kind == "application/json":
        pictures = _from_json(await read_whole(receive), settings.max_images)
    elif kind.startswith("image/") or kind in ("", "application/octet-stream", "application/x-www-form-urlencoded"):
        # curl --data-binary without a header declares a form: the bytes themselves decide.
        pictures = [await read_whole(receive)]
    else:
        raise RequestError(
            Reason.NOT_AN_IMAGE,
            f"Content-Type `{kind[:80]}` is not served. Send the picture itself (image/jpeg, image/png, ...), "
            'multipart/form-data with `image` parts, or application/json with {"images": ["<base64>", ...]}.',
        )
    return pictures


def _too_many(count: str, limit: int) -> RequestError:
    return RequestError(
        Reason.TOO_LARGE, f"{count} pictures in one request; the limit is {limit}. Send several requests."
    )


async def read_whole(receive: Receive) -> bytes:
    """Read a body to its end; raises `ClientGone` where that never comes."""
    chunks = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _from_multipart(scope: Scope, receive: Receive, max_images: int) -> list[bytes | RequestError]:
    try:
        async with Request(scope, receive).form(max_files=max_images, max_fields=32) as form:
            pictures = [await part.read() for part in form.getlist("image") if isinstance(part, UploadFile)]
    except ClientDisconnect:
        raise ClientGone from None
    except (HTTPException, MultiPartException) as error:  # which of the two depends on how Starlette was reached
        detail = error.detail if isinstance(error, HTTPException) else error.message
        if detail.startswith("Too many files"):
            raise _too_many(f"More than {max_images}", max_images) from error
        raise RequestError(Reason.BAD_REQUEST, f"The multipart body cannot be read: {detail}") from error
    if not pictures:
        raise RequestError(
            Reason.BAD_REQUEST,
            f"No file part named `image` in the multipart body (parts: {', '.join(sorted(form)[:8])[:80] or 'none'}). "
            "Send one with `curl -F image=@photo.jpg`.",
        )
    return list(pictures)


def _from_json(body: bytes, max_images: int) -> list[bytes | RequestError]:
    try:
        texts = msgspec.json.decode(body, type=Images).images
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(
            Reason.BAD_REQUEST, f'The body is not JSON of the form {{"images": ["<base64>", ...]}}: {error}'
        ) from error
    if not texts:
        raise RequestError(Reason.BAD_REQUEST, "`images` is empty: send at least one picture in base64.")
    if len(texts) > max_images:
        raise _too_many(str(len(texts)), max_images)
    pictures: list[bytes | RequestError] = []
    for index, text in enumerate(texts):
        try:
            pictures.append(base64.b64decode(text, validate=True))
        except (binascii.Error, ValueError) as error:
            pictures.append(RequestError(Reason.BAD_REQUEST, f"`images[{index}]` is not base64: {error}"))
    return pictures
