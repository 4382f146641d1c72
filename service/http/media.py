"""Media types: that of a request's body, which one `Accept` asks for, and answers of JSON.

`Accept` is parsed here because no installed library does it: Starlette, httpx and aiohttp do not. Werkzeug does, but is
installed only for load tests.
"""

from collections.abc import Mapping

import msgspec
from starlette.responses import Response

from service.errors import Reason, RequestError

JSON, PNG = b"application/json", b"image/png"
# The headers that nearly all clients send: for them, a look-up saves parsing.
_USUAL = frozenset({b"", b"*/*", JSON})
_LONGEST = 2048  # bytes; browsers send some hundred


def media_type(headers: Mapping[bytes, bytes]) -> str:
    """Return the media type of Content-Type, in lower case and without parameters; empty if there is none."""
    return headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()


def wanted(accept: bytes, offered: tuple[bytes, ...]) -> bytes:
    """Choose the type of an answer by the request's `Accept` (RFC 9110, 12.5.1).

    Args:
        accept: the header; empty if there is none.
        offered: the types in which the answer can be had, the preferred one first.

    Returns:
        One of those types; empty: JSON.

    Raises:
        RequestError: `not_acceptable`: the client accepts none of them.
    """
    if accept in _USUAL:
        return b""
    if accept in offered:
        return accept
    ranges = qualities(accept)
    kind = max(offered, key=lambda each: _quality(each, ranges))  # the first of equals
    if not _quality(kind, ranges):
        types = ", ".join(f"`{each.decode()}`" for each in offered)
        raise RequestError(
            Reason.NOT_ACCEPTABLE, f"Accept: {accept[:80].decode('latin-1')}: answers are served as {types}."
        )
    return b"" if kind is JSON else kind


def json_response(
    body: object, status: int = 200, headers: Mapping[str, str] | None = None, kind: bytes = JSON
) -> Response:
    """Answer with JSON."""
    return Response(msgspec.json.encode(body), status, headers, kind.decode())


def one_image_only(kind: bytes, count: int, instead: str = "take `application/json`") -> RequestError:
    """The error for a request that asks for an image but sent several images."""
    return RequestError(
        Reason.NOT_ACCEPTABLE,
        f"Accept: {kind.decode()} answers one image, and {count} were sent. "
        f"Send each in a request of its own, or {instead}.",
    )


def qualities(header: bytes) -> dict[str, float]:
    """What a header such as `Accept` names, in lower case, with the q-values, 0 to 1; an invalid one counts as 0.

    Only its beginning is read: all of a header may have 64 KB, which would take many milliseconds.
    """
    ranges = {}
    for each in header[:_LONGEST].decode("latin-1").lower().split(","):
        name, *parameters = (part.strip() for part in each.split(";"))
        q = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                try:
                    q = min(1.0, max(0.0, float(value)))
                except ValueError:
                    q = 0.0
        ranges[name] = q
    return ranges


def _quality(kind: bytes, ranges: dict[str, float]) -> float:
    """The q-value of a type: that of the most specific range that contains it."""
    for name in (kind.decode(), f"{kind.partition(b'/')[0].decode()}/*", "*/*"):
        if name in ranges:
            return ranges[name]
    return 0.0
