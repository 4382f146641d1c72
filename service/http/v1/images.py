"""Reads the images of a request's body: raw bytes, multipart, or JSON with base64. Limits apply while it is read."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from starlette.types import Receive

from service.errors import ClientGone, Reason, RequestError
from service.http.endpoint import limited, read_whole
from service.http.media import media_type
from service.http.v1.encoded import from_base64, from_quoted_printable
from service.http.v1.json_images import check_no_options, images_from_json
from service.http.v1.multipart import Image, Multipart
from service.settings import Settings

_OTHER_KINDS = ("text/", "audio/", "video/", "font/", "message/", "model/", "multipart/")
_OTHER_TYPES = frozenset({"application/pdf", "application/xml", "application/zip", "application/gzip"})
_ADDRESSES = (b"http://", b"https://")


class Form(NamedTuple):
    """A multipart body: its images, each the bytes or an error, and its other fields."""

    images: list[bytes | RequestError]
    fields: dict[str, str]


async def read_images(
    receive: Receive, headers: Mapping[bytes, bytes], settings: Settings, options: Collection[str] = ()
) -> list[bytes | RequestError]:
    """Read the body and return its images as they were encoded, by the declared content type.

    An image's own bytes decide its format, unless the content type names something that is not an image. If one of
    several images is not valid base64, for example, its place in the list holds the error. A field that has the name of
    one of the `options` is refused, as it would not count.

    Raises:
        RequestError: the body is too large, compressed, of a type that is not an image's, has no image or too many, has
            options, or is not what the content type declares.
        ClientGone: the body ended before it was complete.
    """
    receive = limited(receive, headers, settings.max_body_bytes)
    if (coding := headers.get(b"content-encoding", b"").strip().lower()) not in (b"", b"identity"):
        raise RequestError(
            Reason.NOT_AN_IMAGE,
            f"Content-Encoding `{coding[:80].decode('latin-1')}` is not served. Send the body as it is: images are "
            "compressed already.",
        )
    kind = media_type(headers)
    if kind == "multipart/form-data":
        form = await read_form(receive, headers, settings.max_images)
        check_no_options(form.fields, options)
        return form.images
    if kind == "application/json":
        return await images_from_json(await read_whole(receive), settings.max_images, options)
    if kind.startswith(_OTHER_KINDS) or kind in _OTHER_TYPES:
        raise RequestError(
            Reason.NOT_AN_IMAGE,
            f"Content-Type `{kind[:80]}` is not served. Send the image itself (image/jpeg, image/png, ...), "
            'multipart/form-data with `image` parts, or application/json with {"images": ["<base64>", ...]}.',
        )
    return [await read_whole(receive)]


async def read_form(receive: Receive, headers: Mapping[bytes, bytes], max_images: int) -> Form:
    """Read a multipart body.

    Raises:
        RequestError: the body is not valid, has no image, or too many.
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
