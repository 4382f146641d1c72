"""Content-Encoding of requests to infer, Accept-Encoding of their answers: gzip and deflate. `v2.infer` calls it.

Starlette's GZipMiddleware has gzip only, for answers only, and no limit for what a body may become.
"""

import asyncio
import zlib

from service.errors import Reason, RequestError
from service.oip.tensors import bad

_ZLIB = {b"gzip": 31, b"deflate": 15}  # zlib's window bits, which also choose the format
_SMALL = 1024  # bytes; a shorter answer is not compressed, a shorter body is decompressed at once
_LARGE = 65536  # bytes; a longer answer is compressed on another thread
_LEVEL = 1  # more effort hardly makes tensors smaller


async def decompressed(body: bytes, encoding: bytes, limit: int) -> bytes:
    """Undo a request's Content-Encoding.

    Raises:
        RequestError: `too_large`: it would have more than `limit` bytes; `bad_request`: another encoding, or not it.
    """
    encoding = encoding.strip().lower()
    if encoding in (b"", b"identity"):
        return body
    if encoding not in _ZLIB:
        raise bad(f"Content-Encoding `{encoding[:80].decode('latin-1')}` is not served: expected gzip or deflate.")

    def undo() -> bytes:
        engine = zlib.decompressobj(_ZLIB[encoding])
        try:
            data = engine.decompress(body, limit + 1)
        except zlib.error as error:
            raise bad(f"The body is not {encoding.decode()}: {error}") from error
        if len(data) > limit:
            raise RequestError(Reason.TOO_LARGE, f"Decompressed, the body has more than {limit} bytes, the limit.")
        if not engine.eof or engine.unused_data:
            raise bad(f"The body is not {encoding.decode()}: it ends too early, or goes on behind its end.")
        return data

    return await asyncio.to_thread(undo) if len(body) > _SMALL else undo()  # it may become a thousand times as much


async def compressed(body: bytes, accepted: bytes) -> tuple[bytes, bytes]:
    """Compress an answer as its client accepts it. Returns it with its Content-Encoding, empty where there is none."""
    encoding = next((name for name in _ZLIB if _accepts(accepted, name)), b"")
    if not encoding or len(body) < _SMALL:
        return body, b""

    def pack() -> bytes:
        engine = zlib.compressobj(_LEVEL, zlib.DEFLATED, _ZLIB[encoding])
        return engine.compress(body) + engine.flush()

    return (await asyncio.to_thread(pack) if len(body) > _LARGE else pack()), encoding


def _accepts(header: bytes, encoding: bytes) -> bool:
    """Whether an Accept-Encoding names an encoding, and not with `q=0`."""
    for part in header.lower().split(b","):
        name, _, weight = part.partition(b";")
        if name.strip() == encoding:
            return weight.strip().replace(b" ", b"") not in (b"q=0", b"q=0.0", b"q=0.00", b"q=0.000")
    return False
