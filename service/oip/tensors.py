"""The protocol's tensors: datatypes, and raw bytes (row-major, little-endian, no padding).

BYTES are object arrays of `bytes` here; in raw form, each element is preceded by its length as uint32.
https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from service.arrays import Array, objects
from service.errors import Reason, RequestError
from zoo.card import DType

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
DTYPES = {name: np.dtype(dtype).newbyteorder("<") for dtype, name in DATATYPES.items() if name != "BYTES"}
_DEEPEST = 32  # dimensions
MOST_TEXTS = 1 << 18  # elements of BYTES in one request: each becomes a Python object of about a hundred bytes
_LENGTH = 4  # bytes of an element's length
_BATCH_LIMIT = 1 << 40  # elements; a larger shape is a mistake or an attack


def datatype_of(array: Array) -> str:
    """Return the protocol's name of an array's dtype; object arrays are BYTES."""
    return "BYTES" if array.dtype.kind == "O" else DATATYPES[array.dtype.name]  # type: ignore[index]  # it has all


def check(name: str, datatype: str, shape: Sequence[int]) -> int:
    """Check a tensor's datatype and shape, and return its number of elements.

    Raises:
        RequestError: `bad_request`: the datatype is unknown, or the shape invalid or too large.
    """
    if datatype != "BYTES" and datatype not in DTYPES:
        known = ", ".join(DATATYPES.values())
        raise bad(f"`{name[:80]}`: the datatype `{datatype[:80]}` is not served; expected one of {known}.")
    # The dimensions are checked first: a product of thousands of large numbers would take hours.
    possible = len(shape) <= _DEEPEST and (not shape or (min(shape) >= 0 and max(shape) <= _BATCH_LIMIT))
    size = math.prod(shape) if possible else 0
    if not possible or size > _BATCH_LIMIT:
        raise bad(
            f"`{name[:80]}`: the shape {shape_text(shape)} cannot be: at most {_DEEPEST} dimensions and {_BATCH_LIMIT} "
            "elements, none of them negative."
        )
    return size


def from_raw(name: str, datatype: str, shape: Sequence[int], data: memoryview) -> Array:
    """Make a read-only array from raw bytes, without a copy except of BYTES.

    Raises:
        RequestError: `bad_request`: the number of bytes does not fit datatype and shape, or a BOOL is neither 0 nor 1.
    """
    size = check(name, datatype, shape)
    if datatype == "BYTES":
        if len(data) < _LENGTH * size:
            raise bad(f"`{name[:80]}`: {size} BYTES have at least {_LENGTH * size} bytes, but {len(data)} came.")
        elements = _split(name, data, size)
        if len(elements) != size:
            raise other_size(name, shape, len(elements))
        return objects(elements, shape)
    wanted = DTYPES[datatype]
    if len(data) != size * wanted.itemsize:
        raise bad(
            f"`{name[:80]}`: {datatype} of the shape {shape_text(shape)} has {size * wanted.itemsize} bytes, but "
            f"{len(data)} came."
        )
    if datatype == "BOOL" and np.frombuffer(data, np.uint8).max(initial=0) > 1:
        raise bad(f"`{name[:80]}`: a BOOL is a byte of 0 or 1.")  # a graph would compute with others
    return np.frombuffer(data, wanted).reshape(shape)


def to_raw(array: Array) -> bytes | memoryview:
    """Return the elements of an array as raw bytes; contiguous little-endian numbers are not copied."""
    if array.dtype.kind != "O":
        return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data
    return b"".join(len(value).to_bytes(_LENGTH, "little") + value for value in array.ravel())


def _split(name: str, data: memoryview, size: int) -> list[bytes]:
    """Split raw BYTES into elements, at most `size + 1` of them."""
    elements: list[bytes] = []
    start = 0
    while start < len(data) and len(elements) <= size:
        first = start + _LENGTH
        start = first + int.from_bytes(data[start:first], "little")
        if first > len(data) or start > len(data):
            raise bad(f"`{name[:80]}`: its BYTES end within an element: each needs its length before it, as uint32.")
        elements.append(bytes(data[first:start]))
    return elements


def shape_text(shape: Sequence[int]) -> str:
    """Return a shape for a message, shortened."""
    return str(list(shape)[:8])[:80]


def other_size(name: str, shape: Sequence[int], found: int) -> RequestError:
    """Make the error for data whose number of elements does not fit their shape."""
    return bad(f"`{name[:80]}`: the shape {shape_text(shape)} has {math.prod(shape)} elements, but {found} came.")


def narrowed(name: str, datatype: str, numbers: Array) -> Array:
    """Convert numbers of 64 bits to a datatype.

    Raises:
        RequestError: `bad_request`: the datatype cannot represent all of them.
    """
    dtype = DTYPES[datatype]
    if numbers.dtype == dtype or not numbers.size:
        return numbers.astype(dtype, copy=False)
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            array = numbers.astype(dtype)
        fits = not np.isinf(array).any()
    else:
        array, limits = numbers.astype(dtype), np.iinfo(dtype)
        fits = int(numbers.min()) >= limits.min and int(numbers.max()) <= limits.max
    if not fits:
        raise out_of_range(name, datatype)
    return array


def out_of_range(name: str, datatype: str) -> RequestError:
    """Make the error for numbers that their datatype cannot represent."""
    dtype = DTYPES[datatype]
    if dtype.kind == "f":
        return bad(f"`{name[:80]}`: the largest number of {datatype} is {np.finfo(dtype).max}; the data go beyond it.")
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    return bad(f"`{name[:80]}`: {datatype} has the range {low} to {high}; the data go beyond it.")


def bad(detail: str) -> RequestError:
    """Make the error for a request that does not follow the protocol."""
    return RequestError(Reason.BAD_REQUEST, detail)
