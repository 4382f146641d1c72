"""Decoding of binary data that was sent as text: base64 in the variants that clients send, and quoted-printable.

The data is decoded in pieces, and other tasks of the event loop run in between. One call for a whole body would delay
all other requests, even on another thread: it holds the global interpreter lock (GIL).
"""

import asyncio
import binascii
import re
from contextlib import suppress

import msgspec

_PIECE = 1 << 18  # bytes: about half a millisecond of work
_ESCAPE = 6  # bytes of the longest one in JSON, \u002f
_DATA_URL = re.compile(rb'\s*+(?:data:[^,"]{0,200}?;base64,)?+', re.IGNORECASE)
_DIGITS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_BLANK_IS_PLUS = bytes.maketrans(b"-_ ", b"+/+")


async def from_base64(text: bytes, start: int, end: int, *, json: bool = False) -> bytes:
    """Decode base64: with or without padding, standard or URL-safe, with line breaks, or as a `data:` URL.

    The decoding of web forms turns `+` into spaces. Spaces are read as `+` if there is no `+`, and no space at the end
    of a line.

    Args:
        text: contains it.
        start: where it begins in `text`.
        end: where it ends in `text`.
        json: it is the content of a JSON string, so it may have escapes.

    Raises:
        ValueError: it is not base64, or is ambiguous.
    """
    prefix = _DATA_URL.match(text, start, min(start + 256, end))
    at = prefix.end() if prefix else start
    escaped = json and text.find(b"\\", at, end) >= 0
    decoded, rest, padding = [], b"", 0
    alphabet, removed, pluses = _URL_SAFE, b"\r\n\t", False
    while at < end:
        stop = min(at + _PIECE, end)
        if escaped and stop < end and (cut := text.rfind(b"\\", stop - _ESCAPE + 1, stop)) > at:
            stop = cut  # do not cut inside an escape
        piece = _unescape(text[at:stop]) if escaped else text[at:stop]
        if not (rest or padding) and (stop == end or not piece.endswith(b"=")):
            with suppress(binascii.Error):  # the usual form
                decoded.append(binascii.a2b_base64(piece, strict_mode=True))
                pluses = pluses or b"+" in piece
                piece = b""
        if b" " in piece and alphabet is _URL_SAFE and b" " not in removed:
            if any(blank in piece for blank in (b" \n", b"\n ", b" \r", b"\r ")):
                removed += b" "
            else:
                alphabet = _BLANK_IS_PLUS
        pluses = pluses or b"+" in piece
        piece = rest + piece.translate(alphabet, removed)
        digits = piece.rstrip(b"=")
        if padding and digits:
            raise ValueError("something follows its padding")
        padding += len(piece) - len(digits)
        whole = len(digits) // 4 * 4
        decoded.append(binascii.a2b_base64(digits[:whole], strict_mode=True))
        rest = digits[whole:]
        if (at := stop) < end:
            await asyncio.sleep(0)
    if alphabet is _BLANK_IS_PLUS and pluses:
        raise ValueError("it has both spaces and pluses")
    if rest.translate(None, _DIGITS):
        raise ValueError("Only base64 data is allowed")  # the message of `binascii`
    fill = -len(rest) % 4
    if fill > 2 or padding not in (0, fill):
        raise ValueError("its length or its padding is wrong")
    decoded.append(binascii.a2b_base64(rest + b"=" * fill, strict_mode=True))
    return b"".join(decoded)


async def from_quoted_printable(text: bytes) -> bytes:
    """Decode quoted-printable, which some mail libraries use for the parts of a form."""
    decoded, at = [], 0
    while at < len(text):
        stop = text.rfind(b"\n", at, at + _PIECE) + 1
        if len(text) - at <= _PIECE:
            stop = len(text)
        elif not stop:
            raise ValueError(f"a line of it has more than {_PIECE} bytes")
        decoded.append(binascii.a2b_qp(text[at:stop]))
        if (at := stop) < len(text):
            await asyncio.sleep(0)
    return b"".join(decoded)


def _unescape(piece: bytes) -> bytes:
    r"""Undo the escapes of a piece of a JSON string: PHP writes a slash as `\/`, Gson a padding as `\u003d`."""
    try:
        return msgspec.json.decode(b'"%b"' % piece, type=str).encode("ascii")
    except (msgspec.DecodeError, UnicodeError):
        raise ValueError("it has characters that are not base64") from None
