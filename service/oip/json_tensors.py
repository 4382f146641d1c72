"""Converts tensors from and to JSON, for the bodies of REST. Their raw form is in `service.oip.tensors`.

The kind and number of a tensor's elements are checked on the bytes of its JSON, before any object is created. The
elements are then converted in pieces. So the declared shape limits the memory, and no single call holds the GIL long.
"""

import base64
import binascii
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from service.arrays import Array, objects
from service.oip.tensors import DTYPES, bad, check, narrowed, other_size, out_of_range

_PIECE = 1 << 16  # bytes of JSON that are converted in one call, which takes one or two milliseconds
_ELEMENTS = 1 << 13  # elements of an answer that are written in one call
_BASE64 = 1 << 20  # characters that are decoded in one call, a multiple of four
_NUMBERS = b"0123456789+-.eE,[] \t\r\n"
_BOOLEANS = b"truefals,[] \t\r\n"
_NO_SKELETON = bytes(set(range(256)) - set(b"[],"))
Numbers = list[int | float]
_LISTS: dict[str, Callable[[bytes], Sequence[float]]] = {  # decoders, by the dtype's kind
    "b": msgspec.json.Decoder(list[bool]).decode,
    "f": msgspec.json.Decoder(list[float]).decode,
    **dict.fromkeys("iu", msgspec.json.Decoder(list[int]).decode),
}
_WIDE = {"b": np.dtype("bool"), "i": np.dtype("int64"), "u": np.dtype("int64"), "f": np.dtype("float64")}
_WIDEST = 8  # bytes of a number
_DEEPEST = 32  # the deepest nesting of lists
_ACCEPTED = {"i": "iu", "u": "iu", "f": "iuf"}  # dtype kinds that can be converted, by the kind of the result
_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_decode_texts = msgspec.json.Decoder(list[str] | str).decode
_encode = msgspec.json.Encoder().encode


def from_json(
    name: str, datatype: str, shape: Sequence[int], data: bytes | memoryview, *, encoded: bool = False
) -> Array:
    """Read an array from the JSON of its elements: a flat list, or nested lists.

    Args:
        name: of the tensor, for error messages.
        datatype: the protocol's.
        shape: of the array.
        data: valid JSON.
        encoded: for BYTES, whether the strings are base64.

    Returns:
        An array of that shape and datatype; BYTES are an object array of `bytes`.

    Raises:
        RequestError: `bad_request`: the elements are not of the datatype, or their number does not fit the shape.
    """
    size = check(name, datatype, shape)
    view = memoryview(data)
    if datatype == "BYTES":
        return _texts(name, shape, size, view, encoded=encoded)
    nested = _check_numbers(name, datatype, size, view)
    if not 0 < size <= len(view):  # an element has at least one character
        return _empty(name, datatype, shape, view)
    wanted = DTYPES[datatype]
    decode, wide = _LISTS[wanted.kind], wanted if wanted.itemsize == _WIDEST else _WIDE[wanted.kind]
    array: Array = np.empty(size, wanted)
    filled = 0
    for piece in _pieces(view):
        try:
            numbers = decode(b"[%b]" % (piece.translate(None, b"[]") if nested else piece.strip(b"[] \t\r\n")))
            found: Array = np.array(numbers, wide)
        except _ERRORS as error:
            raise bad(f"`{name[:80]}`: its elements are not {datatype}, or too large for it: {error}.") from error
        except OverflowError:
            raise out_of_range(name, datatype) from None
        if filled + len(found) > size:
            raise other_size(name, shape, _count(view))
        array[filled : filled + len(found)] = narrowed(name, datatype, found)
        filled += len(found)
    if filled != size:
        raise other_size(name, shape, filled)
    return array.reshape(shape)


def from_numbers(name: str, datatype: str, shape: Sequence[int], numbers: Numbers) -> Array:
    """Make an array from a flat list of numbers. Faster than `from_json`, which first checks each byte."""
    size = check(name, datatype, shape)
    if datatype in ("BYTES", "BOOL"):
        raise bad(f"`{name[:80]}`: its elements are not {datatype}, but numbers.")
    if len(numbers) != size:
        raise other_size(name, shape, len(numbers))
    return _converted(name, datatype, numbers).reshape(shape)


def to_json(array: Array) -> Iterator[bytes]:
    """Encode the elements of an array as a flat list, in pieces. NaN and infinity become null.

    Raises:
        RequestError: `bad_request`: BYTES that are not UTF-8 cannot be encoded as JSON.
    """
    flat = array.ravel()
    yield b"["
    for start in range(0, flat.size, _ELEMENTS):
        values = flat[start : start + _ELEMENTS].tolist()
        if array.dtype.kind == "O":
            try:
                values = [value.decode() for value in values]
            except UnicodeDecodeError:
                raise bad("An output of BYTES is not text: ask for it as binary data.") from None
        if start:
            yield b","
        yield _encode(values)[1:-1]
    yield b"]"


def _converted(name: str, datatype: str, numbers: Numbers) -> Array:
    """Convert numbers to a datatype; raises `RequestError` if it cannot represent all of them."""
    wanted = DTYPES[datatype]
    found: Array = np.array(numbers)
    if found.dtype.kind not in _ACCEPTED[wanted.kind] and numbers:
        # NumPy converts integers beyond 64 bits to objects, and some lists of integers around 2**63 to floats.
        if wanted.kind != "f" and any(type(number) is not int for number in numbers):
            raise bad(f"`{name[:80]}`: its elements are not {datatype}: they are not whole numbers.")
        try:
            found = np.array(numbers, np.float64 if wanted.kind == "f" else wanted)
        except OverflowError:
            raise out_of_range(name, datatype) from None
    return narrowed(name, datatype, found)


def _pieces(view: memoryview) -> Iterator[bytes]:
    """Split the JSON of lists of numbers at commas. The pieces do not contain the commas between them."""
    start = 0
    while start < len(view):
        length = _PIECE
        while True:
            piece = bytes(view[start : start + length])
            if start + length >= len(view):
                break
            cut = piece.rfind(b",")
            if cut >= 0:
                piece = piece[:cut]
                break
            length *= 2
        yield piece
        start += len(piece) + 1


def _check_numbers(name: str, datatype: str, size: int, view: memoryview) -> bool:
    """Check, on the bytes, that data are numbers in lists of equal length. Returns whether the lists are nested."""
    known = _BOOLEANS if datatype == "BOOL" else _NUMBERS
    brackets = 0
    for start in range(0, len(view), _PIECE):
        piece = bytes(view[start : start + _PIECE])
        if piece.translate(None, known):
            raise bad(f"`{name[:80]}`: its elements are not {datatype}: expected numbers in lists.")
        brackets += piece.count(b"[")
        if brackets > _DEEPEST * (size + 1):
            raise bad(f"`{name[:80]}`: its data have {brackets} lists and more, which so few elements do not need.")
    if brackets > 1 and not _is_regular(view):
        raise bad(f"`{name[:80]}`: its rows have different lengths.")
    return brackets > 1


def _count(view: memoryview) -> int:
    """Return how many elements lists of numbers have."""
    pieces = [bytes(view[start : start + _PIECE]) for start in range(0, len(view), _PIECE)]
    empty = not any(piece.translate(None, b"[], \t\r\n") for piece in pieces)
    return 0 if empty else 1 + sum(piece.count(b",") for piece in pieces)


def _empty(name: str, datatype: str, shape: Sequence[int], view: memoryview) -> Array:
    """Return an array without elements; raises `RequestError` if the data or the shape have some."""
    if (found := _count(view)) or 0 not in shape:
        raise other_size(name, shape, found)
    return np.empty(shape, DTYPES[datatype])


def _is_regular(view: memoryview) -> bool:
    """Return whether all lists of the same depth have the same length, as in an array."""
    skeleton = b"".join(
        bytes(view[start : start + _PIECE]).translate(None, _NO_SKELETON) for start in range(0, len(view), _PIECE)
    )
    beginning = skeleton[: _DEEPEST + 1]
    depth = len(beginning) - len(beginning.lstrip(b"["))
    block = b""
    for level in range(1, depth + 1):  # from the innermost lists outwards
        length = _find(skeleton, b"]" * level) + level - (depth - level)
        if length < level:
            return False
        count = (length - 1) // (len(block) + 1)
        block = b"[%b%b]" % ((block + b",") * (count - 1), block)
    return block == skeleton


def _find(text: bytes, wanted: bytes) -> int:
    """Like `bytes.find`, but does not hold the GIL for long."""
    for start in range(0, len(text), _PIECE):
        found = text.find(wanted, start, start + _PIECE + len(wanted))
        if found >= 0:
            return found
    return -1


@lru_cache(64)
def _nested(depth: int) -> Any:
    """Return a decoder of strings in nested lists, none of which is empty."""
    kind: Any = str
    for _ in range(depth):
        kind = Annotated[list[kind], Meta(min_length=1)]
    return msgspec.json.Decoder(kind).decode


def _texts(name: str, shape: Sequence[int], size: int, view: memoryview, *, encoded: bool) -> Array:
    start = bytes(view[:256]).translate(None, b" \t\r\n")
    depth = len(start) - len(start.lstrip(b"["))
    try:
        if depth <= 1:
            texts = _decode_texts(view)
            texts = [texts] if isinstance(texts, str) else texts
        elif depth == len(shape):
            texts = _nested(depth)(view)
            for _ in range(depth - 1):
                texts = list(chain.from_iterable(texts))
        else:
            raise bad(f"`{name[:80]}`: its BYTES lie {depth} lists deep; expected one list, or {len(shape)}.")
    except _ERRORS as error:
        raise bad(f"`{name[:80]}`: its elements are not BYTES: in JSON they are texts: {error}.") from error
    if len(texts) != size:
        raise other_size(name, shape, len(texts))
    try:
        return objects([_decode64(text) for text in texts] if encoded else [text.encode() for text in texts], shape)
    except (binascii.Error, ValueError) as error:
        raise bad(f"`{name[:80]}`: its parameter `content_type` says base64, but it is not: {error}.") from error


def _decode64(text: str) -> bytes:
    if len(text) <= _BASE64 or text.find("=", 0, -2) >= 0:  # padding may only be at the end of the last piece
        return base64.b64decode(text, validate=True)
    starts = range(0, len(text), _BASE64)
    return b"".join(base64.b64decode(text[start : start + _BASE64], validate=True) for start in starts)
