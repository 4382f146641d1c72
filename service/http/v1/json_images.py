"""The JSON form of a body, `{"images": ["<base64>", ...]}`, read without a second copy of the body in memory.

Long strings are cut out before the JSON is parsed: what is left is small, whatever was sent, and the base64 is decoded
from the body itself. A parser would first build all values of the body, and hold Python's lock (the GIL) meanwhile.
"""

from typing import NamedTuple

import msgspec

from service.errors import Reason, RequestError
from service.http.v1.encoded import from_base64

MAX_BESIDE = 16 * 1024  # bytes of JSON beside the images
_LONG = 64  # bytes; a longer string is cut out, and its placeholder is longer, too
_MAX_ESCAPED_QUOTES = 64
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BACKSLASH = ord("\\")


class Images(msgspec.Struct):
    """The form of the body: images in base64, at least one."""

    images: list[str]


class _Text(NamedTuple):
    """Where a long string is in the body."""

    start: int
    end: int


async def images_from_json(body: bytes, max_images: int) -> list[bytes | RequestError]:
    """Take the images out of a JSON body. One whose base64 is broken is an error in its place.

    Raises:
        RequestError: `bad_request`: not of that form; `too_large`: too many images, or too much beside them.
    """
    rest, texts = _cut_out(body, MAX_BESIDE + max_images * (_LONG + 8))
    try:
        given = msgspec.json.decode(rest, type=Images).images
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _bad(str(error)) from error
    if not given:
        raise RequestError(Reason.BAD_REQUEST, "`images` is empty: send at least one image in base64.")
    if len(given) > max_images:
        raise _too_many(max_images)
    images: list[bytes | RequestError] = []
    for index, text in enumerate(given):
        try:
            if len(text) > _LONG:
                long = texts[int(text)]
                images.append(await from_base64(body, long.start, long.end, json=True))
            else:
                short = text.encode("ascii")
                images.append(await from_base64(short, 0, len(short)))
        except ValueError as error:
            images.append(RequestError(Reason.BAD_REQUEST, f"`images[{index}]` is not base64: {str(error)[:200]}"))
    return images


def _cut_out(body: bytes, limit: int) -> tuple[bytes, list[_Text]]:
    """Put placeholders in place of a body's long strings; what is left has at most `limit` bytes.

    A placeholder is the string's number, with zeros in front: longer than any string that was left.
    """
    pieces: list[bytes] = []
    texts: list[_Text] = []
    at, size, escaped = len(_BYTE_ORDER_MARK) if body.startswith(_BYTE_ORDER_MARK) else 0, 0, 0
    while (start := body.find(b'"', at, at + limit) + 1) > 0:
        end = start - 1
        while True:
            end = body.find(b'"', end + 1)
            if end < 0:
                raise _bad("a string in it has no end")
            before = end
            while before > start and body[before - 1] == _BACKSLASH and end - before <= _MAX_ESCAPED_QUOTES:
                before -= 1
            if (end - before) % 2 == 0:
                break
            escaped += 1
            if escaped > _MAX_ESCAPED_QUOTES:
                raise _bad("its strings have too many escaped quotes")
        if end - start > _LONG:
            pieces += (body[at:start], b"%0*d" % (_LONG + 1, len(texts)))
            texts.append(_Text(start, end))
            size += start - at + _LONG + 2
        else:
            pieces.append(body[at:end])
            size += end - at
        pieces.append(b'"')
        at = end + 1
        if size > limit:
            break
    if size + len(body) - at > limit:
        raise RequestError(
            Reason.TOO_LARGE,
            f"The JSON has more than {limit} bytes beside the images, or more images than the server's limit. "
            "Send fewer at once.",
        )
    pieces.append(body[at:])
    return b"".join(pieces), texts


def _too_many(limit: int) -> RequestError:
    return RequestError(Reason.TOO_LARGE, f"More than {limit} images in one request. Send several requests.")


def _bad(what: str) -> RequestError:
    return RequestError(Reason.BAD_REQUEST, f'The body is not JSON of the form {{"images": ["<base64>", ...]}}: {what}')
