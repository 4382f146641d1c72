"""Tensors as the protocol has them: datatypes, JSON, and raw bytes (row-major, little-endian, no padding).

BYTES are object arrays of `bytes` here; in raw form each element has its length before it, as uint32.
https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from service.errors import Reason, RequestError
from zoo.card import DType

Array = npt.NDArray[Any]
DATATYPES: Mapping[DType, str] = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "string": "BYTES",
}
_DTYPES = {name: np.dtype(dtype).newbyteorder("<") for dtype, name in DATATYPES.items() if name != "BYTES"}
_ACCEPTED = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}  # kinds of JSON's numbers, by the kind that is wanted
_DEEPEST = 32  # dimensions of a JSON value
_LENGTH = 4  # bytes of an element's length
_BATCH_LIMIT = 1 << 40  # elements; a shape beyond it is a mistake, or meant to be one


def datatype_of(array: Array) -> str:
    """The protocol's name of an array's type; objects are BYTES."""
    return "BYTES" if array.dtype.kind == "O" else DATATYPES[array.dtype.name]  # type: ignore[index]  # it has all


def check(name: str, datatype: str, shape: Sequence[int]) -> int:
    """Check what a request says of a tensor, and return its number of elements.

    Raises:
        RequestError: `bad_request`: no such datatype, or no shape.
    """
    if datatype != "BYTES" and datatype not in _DTYPES:
        known = ", ".join(DATATYPES.values())
        raise _bad(f"`{name[:80]}`: the datatype `{datatype[:80]}` is not served; expected one of {known}.")
    # Each side and their number first: a product of thousands of large numbers would take hours.
    possible = len(shape) <= _DEEPEST and all(0 <= side <= _BATCH_LIMIT for side in shape)
    size = math.prod(shape) if possible else 0
    if not possible or size > _BATCH_LIMIT:
        raise _bad(
            f"`{name[:80]}`: the shape {_words(shape)} cannot be: at most {_DEEPEST} dimensions and {_BATCH_LIMIT} "
            "elements, none of them negative."
        )
    return size


def _words(shape: Sequence[int]) -> str:
    """A shape for a message, cut short."""
    return str(list(shape)[:8])[:80]


def from_json(name: str, datatype: str, shape: Sequence[int], data: Any, *, encoded: bool = False) -> Array:
    """Make an array of a JSON value: the elements in a flat list, or in lists within lists.

    Args:
        name: of the tensor, for messages.
        datatype: the protocol's.
        shape: of the array.
        data: the decoded JSON.
        encoded: texts are base64, where they are BYTES.

    Raises:
        RequestError: `bad_request`: other values than the datatype has, or another number of them.
    """
    size = check(name, datatype, shape)
    if datatype == "BYTES":
        texts = _flat(data)
        if len(texts) != size:
            raise _other_size(name, shape, len(texts))
        array: Array = np.empty(size, object)
        array[:] = [_from_text(name, text, encoded=encoded) for text in texts]
        return array.reshape(shape)
    wanted = _DTYPES[datatype]
    try:
        found: Array = np.array(data)
    except ValueError as error:
        raise _bad(f"`{name[:80]}`: its rows have different lengths: {error}") from error
    if found.size != size:
        raise _other_size(name, shape, found.size)
    if size == 0:
        return np.empty(shape, wanted)
    whole = _whole(data) if wanted.kind in "iu" and found.dtype.kind in "fO" else None
    if whole is not None:
        found = whole
    elif found.dtype.kind not in _ACCEPTED[wanted.kind]:
        raise _bad(f"`{name[:80]}`: its elements are no {datatype}, or too large for it.")
    if wanted.kind in "iu":
        low, high = np.iinfo(wanted).min, np.iinfo(wanted).max
        if int(found.min()) < low or int(found.max()) > high:
            raise _bad(f"`{name[:80]}`: {datatype} has the range {low} to {high}; the data go beyond it.")
    return found.astype(wanted).reshape(shape)


def to_json(array: Array) -> list[Any]:
    """The elements of an array as a flat list for JSON. What is no number (NaN, infinity) becomes null there.

    Raises:
        RequestError: `bad_request`: BYTES that are no text cannot be JSON.
    """
    if array.dtype.kind != "O":
        values: list[Any] = array.ravel().tolist()
        return values
    try:
        return [value.decode() for value in array.ravel()]
    except UnicodeDecodeError:
        raise _bad("An output of BYTES is no text: ask for it as binary data.") from None


def from_raw(name: str, datatype: str, shape: Sequence[int], data: memoryview) -> Array:
    """Make an array of raw bytes; numbers are not copied, and the array is read-only.

    Raises:
        RequestError: `bad_request`: another number of bytes than datatype and shape need.
    """
    size = check(name, datatype, shape)
    if datatype == "BYTES":
        elements = _split(name, data, size)
        if len(elements) != size:
            raise _other_size(name, shape, len(elements))
        array: Array = np.empty(size, object)
        array[:] = elements
        return array.reshape(shape)
    wanted = _DTYPES[datatype]
    if len(data) != size * wanted.itemsize:
        raise _bad(
            f"`{name[:80]}`: {datatype} of the shape {_words(shape)} has {size * wanted.itemsize} bytes, but "
            f"{len(data)} came."
        )
    return np.frombuffer(data, wanted).reshape(shape)


def to_raw(array: Array) -> bytes:
    """The elements of an array as raw bytes."""
    if array.dtype.kind != "O":
        return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    return b"".join(len(value).to_bytes(_LENGTH, "little") + value for value in array.ravel())


def _whole(data: Any) -> Array | None:
    """The same as objects, where all are whole: of large ones NumPy makes floats, or nothing of its own."""
    array: Array = np.array(data, object)
    return array if all(type(number) is int for number in array.flat) else None


def _flat(data: Any, depth: int = 0) -> list[Any]:
    if not isinstance(data, list):
        return [data]
    if depth > _DEEPEST:
        raise _bad(f"The data are lists within more than {_DEEPEST} lists.")
    if not any(isinstance(item, list) for item in data):
        return data
    return [element for item in data for element in _flat(item, depth + 1)]


def _from_text(name: str, text: Any, *, encoded: bool) -> bytes:
    if not isinstance(text, str):
        raise _bad(f"`{name[:80]}`: its elements are no BYTES: in JSON they are texts.")
    if not encoded:
        return text.encode()
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _bad(f"`{name[:80]}`: its parameter `content_type` says base64, but it is not: {error}") from error


def _split(name: str, data: memoryview, size: int) -> list[bytes]:
    """Cut the elements apart, up to one more than there should be."""
    elements: list[bytes] = []
    start = 0
    while start < len(data) and len(elements) <= size:
        first = start + _LENGTH
        start = first + int.from_bytes(data[start:first], "little")
        if first > len(data) or start > len(data):
            raise _bad(f"`{name[:80]}`: its BYTES end within an element: each needs its length before it, as uint32.")
        elements.append(bytes(data[first:start]))
    return elements


def _other_size(name: str, shape: Sequence[int], found: int) -> RequestError:
    return _bad(f"`{name[:80]}`: the shape {list(shape)} has {math.prod(shape)} elements, but {found} came.")


def _bad(detail: str) -> RequestError:
    return RequestError(Reason.BAD_REQUEST, detail)
