"""Decompresses requests (Content-Encoding) and compresses answers (Accept-Encoding): gzip and deflate. For `v2.infer`.

Starlette's GZipMiddleware has only gzip, only for answers, and no limit on the decompressed size.
"""

import asyncio
import zlib

from service.errors import Reason, RequestError
from service.http.media import qualities
from service.limits import Share
from service.oip.tensors import bad

_ZLIB = {b"gzip": 31, b"deflate": 15}  # zlib's window bits, which also choose the format
_GROWTH = 1032  # times, the most that deflate can
_SMALL = 1024  # bytes; a shorter answer is not compressed, a shorter body is decompressed at once
_LARGE = 65536  # bytes; a longer answer is compressed on another thread
_LEVEL = 1  # higher levels hardly make tensors smaller


async def decompressed(body: bytes, encoding: bytes, limit: int, share: Share) -> bytes:
    """Undo a request's Content-Encoding.

    Args:
        body: as it arrived.
        encoding: the value of Content-Encoding.
        limit: bytes that it may have decompressed.
        share: of the memory for decompressed bodies. It holds as much as the body may grow to, then as it has.

    Raises:
        RequestError: `too_large`: it has more than `limit` bytes decompressed; `bad_request`: the encoding is not
            supported, or the body is not valid; `queue_full`: it does not fit into the memory.
    """
    encoding = encoding.strip().lower()
    if encoding in (b"", b"identity"):
        return body
    if encoding not in _ZLIB:
        raise bad(f"Content-Encoding `{encoding[:80].decode('latin-1')}` is not served: expected gzip or deflate.")

    most = min(limit, _GROWTH * len(body))
    share.add(most)

    def undo() -> bytes:
        engine = zlib.decompressobj(_ZLIB[encoding])
        try:
            data = engine.decompress(body, limit + 1)
        except zlib.error as error:
            raise bad(f"The body is not {encoding.decode()}: {error}") from error
        if len(data) > limit:
            raise RequestError(Reason.TOO_LARGE, f"Decompressed, the body has more than {limit} bytes, the limit.")
        if not engine.eof or engine.unused_data:
            raise bad(f"The body is not {encoding.decode()}: it ends too early, or has data after its end.")
        return data

    data = await asyncio.to_thread(undo) if len(body) > _SMALL else undo()
    share.free(most - len(data))
    return data


async def compressed(body: bytes, accepted: bytes) -> tuple[bytes, bytes]:
    """Compress an answer if its client accepts that. Returns it and its Content-Encoding, empty if not compressed."""
    if len(body) < _SMALL:
        return body, b""
    wanted = qualities(accepted)
    encoding = next((name for name in _ZLIB if wanted.get(name.decode())), b"")
    if not encoding:
        return body, b""

    def pack() -> bytes:
        engine = zlib.compressobj(_LEVEL, zlib.DEFLATED, _ZLIB[encoding])
        return engine.compress(body) + engine.flush()

    return (await asyncio.to_thread(pack) if len(body) > _LARGE else pack()), encoding
