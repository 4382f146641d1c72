"""Tensors as bytes, between a front and the engine: a description, and the values as they lie in memory."""

import struct

import msgspec
import numpy as np

from service.arrays import Array, Tensors, objects
from service.fronts.channel import Buffer

_ALIGNED = 8  # bytes, which is enough for all types
_LENGTH = struct.Struct("<Q")
_Heads = list[tuple[str, str, tuple[int, ...], int, int]]  # name, type, shape, where the values begin, their bytes


def pack(tensors: Tensors) -> list[Buffer]:
    """Write tensors of any shape; texts are object arrays of `str` or `bytes`. Only texts are copied."""
    heads: _Heads = []
    parts: list[Buffer] = []
    offset = 0
    for name, value in tensors.items():
        if value.dtype.kind == "O":
            data: Buffer = msgspec.msgpack.encode(value.ravel().tolist())
        else:
            data = np.ascontiguousarray(value).reshape(-1).view(np.uint8).data
        length = len(data)
        heads.append((name, value.dtype.str, value.shape, offset, length))
        parts += [data, bytes(-length % _ALIGNED)]
        offset += length + -length % _ALIGNED
    head = msgspec.msgpack.encode(heads)
    return [_LENGTH.pack(len(head)), head, bytes(-len(head) % _ALIGNED), *parts]


def unpack(body: memoryview) -> dict[str, Array]:
    """Read what `pack` wrote. The arrays are views of the body, if that is aligned."""
    (length,) = _LENGTH.unpack_from(body)
    first = _LENGTH.size + length
    heads = msgspec.msgpack.decode(body[_LENGTH.size : first], type=_Heads)
    values = body[first + -length % _ALIGNED :]
    found: dict[str, Array] = {}
    for name, dtype, shape, offset, size in heads:
        data = values[offset : offset + size]
        if np.dtype(dtype).kind == "O":
            found[name] = objects(msgspec.msgpack.decode(data), shape)
        else:
            array: Array = np.frombuffer(data, dtype)
            found[name] = (array if array.flags.aligned else array.copy()).reshape(shape)
    return found
