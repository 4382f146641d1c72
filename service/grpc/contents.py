"""Typed contents of tensors (`InferTensorContents`): counted where they lie, then made an array. `codec` calls it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from service.grpc import wire
from service.grpc.schema import message
from service.oip.tensors import DTYPES, Array, bad, check, narrowed, other_size

FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_NAMES = (
    "bool_contents",
    "int_contents",
    "int64_contents",
    "uint_contents",
    "uint64_contents",
    "fp32_contents",
    "fp64_contents",
    "bytes_contents",
)
_Contents = message("InferTensorContents")
_NUMBERS = {name: number for number, name in enumerate(_NAMES, 1)}
_FIXED: Mapping[str, tuple[int, np.dtype[Any]]] = {
    "fp32_contents": (wire.FIXED32, np.dtype("<f4")),
    "fp64_contents": (wire.FIXED64, np.dtype("<f8")),
}
_STORED: Mapping[str, npt.DTypeLike] = {  # what the field's type makes of 64 bits
    "bool_contents": np.bool_,
    "int_contents": np.int32,
    "int64_contents": np.int64,
    "uint_contents": np.uint32,
    "uint64_contents": np.uint64,
}
_MORE = bytes(range(128, 256))  # bytes behind which a number goes on
_LONGEST = 10  # bytes of a number
_PIECE = 1 << 16  # bytes that are converted at once
_MOST_SINGLE = 1 << 16  # elements that are not packed: proto3's clients pack them


def typed(name: str, datatype: str, shape: Sequence[int], parts: Sequence[memoryview]) -> Array:
    """Make an array of a tensor's typed contents.

    Args:
        name: of the tensor, for messages.
        datatype: the protocol's.
        shape: of the array.
        parts: the contents in the wire format. Their elements follow upon each other.

    Raises:
        RequestError: `bad_request`: other contents than belong to datatype and shape.
    """
    if datatype == "FP16":
        raise bad(f"`{name[:80]}`: FP16 has no typed field: send it in `raw_input_contents`.")
    size = check(name, datatype, shape)
    field = FIELDS[datatype]
    if datatype == "BYTES":
        elements = [bytes(element) for element in _elements(name, datatype, parts, size + 1)]
        if len(elements) != size:
            raise other_size(name, shape, len(elements))
        array: Array = np.empty(size, object)
        array[:] = elements
        return array.reshape(shape)
    lying = list(_elements(name, datatype, parts, _MOST_SINGLE))
    found = sum(_count(one, field) for one in lying)
    if found != size:
        raise other_size(name, shape, found)
    packed = lying[0] if len(lying) == 1 else memoryview(b"".join(lying))
    if field in _FIXED:
        return np.frombuffer(packed, _FIXED[field][1]).reshape(shape)
    return _numbers(name, datatype, size, packed, field).reshape(shape)


def _elements(name: str, datatype: str, parts: Sequence[memoryview], most: int) -> Iterator[memoryview]:
    """Find the values of the datatype's field: one of BYTES, one number, or many that are packed."""
    field = FIELDS[datatype]
    number, single = _NUMBERS[field], _FIXED[field][0] if field in _FIXED else wire.VARINT
    for part in parts:
        for found, kind, _, value, end in wire.fields(part, most):
            most -= 1
            if found != number:
                other = _NAMES[found - 1] if found <= len(_NAMES) else f"field {found}"
                raise bad(f"`{name[:80]}`: {datatype} belongs into `{field}`, but {other} came.")
            if kind != wire.LENGTH and (field == "bytes_contents" or kind != single):
                raise bad(f"`{name[:80]}`: `{field}` is not encoded as its type is.")
            yield part[value:end]


def _count(packed: memoryview, field: str) -> int:
    """How many numbers lie there."""
    if field in _FIXED:
        width = _FIXED[field][1].itemsize
        return -1 if len(packed) % width else len(packed) // width
    pieces = (bytes(packed[start : start + _PIECE]) for start in range(0, len(packed), _PIECE))
    return sum(len(piece.translate(None, _MORE)) for piece in pieces)


def _numbers(name: str, datatype: str, size: int, packed: memoryview, field: str) -> Array:
    """Decode so many varints as their field's type, and refuse those that the datatype does not have."""
    array: Array = np.empty(size, DTYPES[datatype])
    tag = bytes([_NUMBERS[field] << 3 | wire.LENGTH])
    start = filled = 0
    while start < len(packed):
        piece = bytes(packed[start : start + _PIECE])
        piece = piece[: len(piece) - _unfinished(piece)]
        try:
            contents = _Contents.FromString(b"".join([tag, wire.varint(len(piece)), piece]))
        except DecodeError:
            contents = _Contents()
        values = np.array(getattr(contents, field), _STORED[field])
        if not len(values):
            raise bad(f"`{name[:80]}`: a number of `{field}` does not end.")
        array[filled : filled + len(values)] = narrowed(name, datatype, values)
        filled += len(values)
        start += len(piece)
    return array


def _unfinished(piece: bytes) -> int:
    """How many bytes at the end belong to a number that goes on behind it."""
    end = len(piece)
    while end and len(piece) - end < _LONGEST and piece[end - 1] >= _MORE[0]:
        end -= 1
    return len(piece) - end
