"""From a request's body to its images: raw bytes, multipart, or JSON with base64. Limits hold while it is read."""

from collections.abc import Mapping
from typing import NamedTuple

from starlette.types import Message, Receive

from service.errors import Reason, RequestError
from service.http.encoded import from_base64, from_quoted_printable
from service.http.json_images import read_images
from service.http.multipart import Image, Multipart
from service.settings import Settings

_OTHER_KINDS = ("text/", "audio/", "video/", "font/", "message/", "model/", "multipart/")
_OTHER_TYPES = frozenset({"application/pdf", "application/xml", "application/zip", "application/gzip"})
_ADDRESSES = (b"http://", b"https://")


class ClientGone(Exception):  # noqa: N818 - an event, not a fault
    """The client hung up while its body was read."""


class Form(NamedTuple):
    """A multipart body: its images, or an error in the place of one, and its other fields."""

    images: list[bytes | RequestError]
    fields: dict[str, str]


def limited(receive: Receive, limit: int, declared: str | None) -> Receive:
    """Wrap an ASGI `receive` so that a body of more than `limit` bytes is refused as soon as that is known.

    Raises:
        RequestError: `too_large`, at once where Content-Length says so, else while reading.
    """

    def refuse(size: str) -> RequestError:
        return RequestError(
            Reason.TOO_LARGE,
            f"The body has {size} bytes; the limit is {limit}. Send a smaller image, or fewer at once.",
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


def limited_by(settings: Settings, receive: Receive, headers: Mapping[bytes, bytes]) -> Receive:
    """Wrap an ASGI `receive` with the server's limit on bodies; see `limited`."""
    return limited(receive, int(settings.max_body_mb * 1e6), headers.get(b"content-length", b"").decode() or None)


def kind_of(headers: Mapping[bytes, bytes]) -> str:
    """Return the media type of a request's Content-Type, in lower case and without parameters; empty: none."""
    return headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()


async def read_pictures(
    receive: Receive, headers: Mapping[bytes, bytes], settings: Settings
) -> list[bytes | RequestError]:
    """Read the body and take the images out of it, by the declared content type.

    The bytes decide, unless the type names something that is no image. An image among several that is not encoded
    rightly is an error in its place.

    Raises:
        RequestError: too large, compressed, not an image's type, no image, too many, or not the format that was
            declared.
        ClientGone: the body ended before it was complete.
    """
    receive = limited_by(settings, receive, headers)
    if (coding := headers.get(b"content-encoding", b"identity").strip().lower()) != b"identity":
        raise RequestError(
            Reason.NOT_AN_IMAGE,
            f"Content-Encoding `{coding[:80].decode('latin-1')}` is not served. Send the body as it is: images are "
            "compressed already.",
        )
    kind = kind_of(headers)
    if kind == "multipart/form-data":
        return (await read_form(receive, headers, settings.max_images)).images
    if kind == "application/json":
        return await read_images(await read_whole(receive), settings.max_images)
    if kind.startswith(_OTHER_KINDS) or kind in _OTHER_TYPES:
        raise RequestError(
            Reason.NOT_AN_IMAGE,
            f"Content-Type `{kind[:80]}` is not served. Send the image itself (image/jpeg, image/png, ...), "
            'multipart/form-data with `image` parts, or application/json with {"images": ["<base64>", ...]}.',
        )
    return [await read_whole(receive)]


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


async def read_form(receive: Receive, headers: Mapping[bytes, bytes], max_images: int) -> Form:
    """Read a multipart body.

    Raises:
        RequestError: it cannot be read, has no image, or too many.
        ClientGone: the body ended before it was complete.
    """
    form = Multipart(headers.get(b"content-type", b""), max_images)
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        form.feed(message.get("body", b""))
        if not message.get("more_body", False):
            break
    form.finish()
    if not form.images:
        raise RequestError(
            Reason.BAD_REQUEST,
            f"No part named `image` in the multipart body (parts: {', '.join(sorted(form.fields)[:8])[:80] or 'none'})."
            " Send one with `curl -F image=@photo.jpg`.",
        )
    return Form([await _decoded(image) for image in form.images], form.fields)


async def _decoded(image: Image) -> bytes | RequestError:
    """Undo a part's Content-Transfer-Encoding."""
    data, encoding = image
    try:
        if encoding == b"base64":
            return await from_base64(data, 0, len(data))
        if encoding == b"quoted-printable":
            return await from_quoted_printable(data)
    except ValueError as error:
        return RequestError(Reason.BAD_REQUEST, f"A part is not {encoding.decode()}: {str(error)[:200]}")
    if data[:8].lower().startswith(_ADDRESSES):
        return RequestError(
            Reason.BAD_REQUEST, "A part is an address. Send the image itself; addresses are not fetched."
        )
    return data
