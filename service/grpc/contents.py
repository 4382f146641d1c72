"""Typed contents of tensors (`InferTensorContents`) to arrays. Elements are counted first. `codec` calls it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from service.arrays import Array, objects
from service.grpc import wire
from service.grpc.schema import message
from service.oip.tensors import DTYPES, bad, check, narrowed, other_size

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
_Contents = message("InferTensorContents")
_NUMBERS = {field.name: field.number for field in _Contents.DESCRIPTOR.fields}
_NAMES = {number: name for name, number in _NUMBERS.items()}
_FIXED: Mapping[str, tuple[int, np.dtype[Any]]] = {
    "fp32_contents": (wire.FIXED32, np.dtype("<f4")),
    "fp64_contents": (wire.FIXED64, np.dtype("<f8")),
}
_STORED: Mapping[str, npt.DTypeLike] = {  # the dtype of the values of a field of varints
    "bool_contents": np.bool_,
    "int_contents": np.int32,
    "int64_contents": np.int64,
    "uint_contents": np.uint32,
    "uint64_contents": np.uint64,
}
_MORE = bytes(range(128, 256))  # all bytes of a varint except its last
_LONGEST = 10  # bytes of a varint
_PIECE = 1 << 16  # bytes that are converted in one call
_MOST_SINGLE = 1 << 16  # the most elements that are not packed; clients of proto3 pack them


def typed(name: str, datatype: str, shape: Sequence[int], parts: Sequence[memoryview]) -> Array:
    """Convert a tensor's typed contents to an array.

    Args:
        name: of the tensor, for error messages.
        datatype: the protocol's.
        shape: of the array.
        parts: the contents in the wire format. A later part's elements follow an earlier one's.

    Returns:
        An array of that shape and datatype; BYTES are an object array of `bytes`.

    Raises:
        RequestError: `bad_request`: the contents do not fit datatype and shape.
    """
    if datatype == "FP16":
        raise bad(f"`{name[:80]}`: FP16 has no typed field: send it in `raw_input_contents`.")
    size = check(name, datatype, shape)
    field = FIELDS[datatype]
    if datatype == "BYTES":
        elements = [bytes(element) for element in _elements(name, datatype, parts, size + 1)]
        if len(elements) != size:
            raise other_size(name, shape, len(elements))
        return objects(elements, shape)
    chunks = list(_elements(name, datatype, parts, _MOST_SINGLE))
    found = sum(_count(chunk, field) for chunk in chunks)
    if found != size:
        raise other_size(name, shape, found)
    packed = chunks[0] if len(chunks) == 1 else memoryview(b"".join(chunks))
    if field in _FIXED:
        return np.frombuffer(packed, _FIXED[field][1]).reshape(shape)
    return _numbers(name, datatype, size, packed, field).reshape(shape)


def _elements(name: str, datatype: str, parts: Sequence[memoryview], most: int) -> Iterator[memoryview]:
    """Find the encoded values of the datatype's field: one element of BYTES, one number, or many packed numbers."""
    field = FIELDS[datatype]
    number, single = _NUMBERS[field], _FIXED[field][0] if field in _FIXED else wire.VARINT
    for part in parts:
        for found, kind, _, value, end in wire.fields(part, most):
            most -= 1
            if found != number:
                other = _NAMES.get(found, f"field {found}")
                raise bad(f"`{name[:80]}`: {datatype} belongs into `{field}`, but {other} came.")
            if kind != wire.LENGTH and (field == "bytes_contents" or kind != single):
                raise bad(f"`{name[:80]}`: `{field}` is not encoded as its type is.")
            yield part[value:end]


def _count(packed: memoryview, field: str) -> int:
    """Return how many numbers packed data hold, or -1 if the last number is not complete."""
    if field in _FIXED:
        width = _FIXED[field][1].itemsize
        return -1 if len(packed) % width else len(packed) // width
    pieces = (bytes(packed[start : start + _PIECE]) for start in range(0, len(packed), _PIECE))
    return sum(len(piece.translate(None, _MORE)) for piece in pieces)


def _numbers(name: str, datatype: str, size: int, packed: memoryview, field: str) -> Array:
    """Decode `size` varints, and refuse those that the datatype cannot represent."""
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
    """Return how many bytes at the end belong to a varint that is not complete."""
    end = len(piece)
    while end and len(piece) - end < _LONGEST and piece[end - 1] >= _MORE[0]:
        end -= 1
    return len(piece) - end
