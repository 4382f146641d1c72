"""Reading a request's body to its end, within the server's limit. `v1` and `v2` read theirs with it."""

from collections.abc import Mapping

from starlette.types import Message, Receive

from service.errors import ClientGone, Reason, RequestError
from service.settings import Settings


def limited(receive: Receive, limit: int, declared: str | None) -> Receive:
    """Wrap an ASGI `receive` so that a body of more than `limit` bytes is refused as soon as that is known.

    Args:
        receive: of the request.
        limit: bytes.
        declared: what Content-Length says; None: nothing.

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
