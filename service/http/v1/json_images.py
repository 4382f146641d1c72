"""Reads JSON bodies, `{"images": ["<base64>", ...]}`, without a second copy of the body in memory.

Long strings are replaced before the JSON is parsed, so the parsed text is always small, and the base64 is decoded
from the body itself. A parser would first build all values of the body and hold the GIL all that time.
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple

import msgspec

from service.errors import Reason, RequestError
from service.http.v1.encoded import from_base64
from service.http.v1.multipart import too_many_images

MAX_OTHER = 16 * 1024  # bytes of JSON apart from the images
_LONG = 64  # bytes; a longer string is replaced by a placeholder, which is also longer than this
_MAX_ESCAPED_QUOTES = 64
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BACKSLASH = ord("\\")


class Images(msgspec.Struct):
    """The structure of the body: images in base64, at least one."""

    images: list[str]


class _Text(NamedTuple):
    """The position of a long string in the body."""

    start: int
    end: int


async def images_from_json(body: bytes, max_images: int, options: Collection[str] = ()) -> list[bytes | RequestError]:
    """Return the images of a JSON body. An image whose base64 is invalid is replaced by the error.

    Raises:
        RequestError: `bad_request`: not of that form; `too_large`: too many images, or too much other JSON;
            `bad_option`: it has options.
    """
    if body[: 2 * _LONG].removeprefix(_BYTE_ORDER_MARK).lstrip()[:1] not in (b"{", b""):
        raise _bad("it does not begin with `{`. An image itself is sent as image/jpeg, image/png and so on")
    rest, texts = _cut_out(body, MAX_OTHER + max_images * (_LONG + 8))
    try:
        given = msgspec.json.decode(rest, type=Images).images
        check_no_options(msgspec.json.decode(rest, type=dict[str, msgspec.Raw]), options)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _bad(str(error)) from error
    if not given:
        raise RequestError(Reason.BAD_REQUEST, "`images` is empty: send at least one image in base64.")
    if len(given) > max_images:
        raise too_many_images(max_images)
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


def check_no_options(names: Iterable[str], options: Collection[str]) -> None:
    """Refuse fields of a body that are named as options: they would not count.

    Raises:
        RequestError: `bad_option`.
    """
    if wrong := sorted(set(names).intersection(options)):
        raise RequestError(
            Reason.BAD_OPTION, f"`{wrong[0]}` is a field of the body. Options go in the query: `?{wrong[0]}=...`."
        )


def _cut_out(body: bytes, limit: int) -> tuple[bytes, list[_Text]]:
    """Replace a body's long strings by placeholders. Returns the new text, at most `limit` bytes, and the positions.

    A placeholder is the string's index with leading zeros, longer than any string that was not replaced.
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
            f"The JSON has more than {limit} bytes apart from the images, or more images than the server's limit. "
            "Send fewer at once.",
        )
    pieces.append(body[at:])
    return b"".join(pieces), texts


def _bad(what: str) -> RequestError:
    return RequestError(Reason.BAD_REQUEST, f'The body is not JSON of the form {{"images": ["<base64>", ...]}}: {what}')
