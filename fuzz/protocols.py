"""The Open Inference Protocol as fuzz targets: bodies of JSON, JSON with raw tensors behind it, and gRPC messages.

Every request is for a model that takes a tensor of each kind, with sides that are free.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import get_args

from service.errors import RequestError
from service.grpc.codec import parse as message_of
from service.grpc.codec import read
from service.grpc.contents import FIELDS
from service.grpc.schema import message
from service.grpc.wire import split
from service.http.v2.body import parse
from service.oip.takes import Takes
from service.oip.tensors import DATATYPES, DTYPES
from service.settings import Settings
from zoo.card import DType, Licence
from zoo.served_card import GoldenTensors, Parity, Provenance, ServedTensors, Tensor

Seeds = Iterator[tuple[str, bytes]]
_LENGTH = 2  # bytes before a body that say where its JSON ends
_SHA256 = 64 * "0"


def _card(*without: DType) -> ServedTensors:
    inputs = tuple(Tensor(f"in_{dtype}", dtype, (None, None)) for dtype in get_args(DType) if dtype not in without)
    return ServedTensors(
        name="fuzzed",
        version="1",
        task="tensors",
        family="tensors",
        title="",
        homepage="",
        licence=Licence("Apache-2.0", "Apache-2.0"),
        precision="fp32",
        opset=20,
        sha256=_SHA256,
        size=1,
        provenance=Provenance({}, {}, "", {}),
        parity=Parity("", 0.0, (1,), {}),
        inputs=inputs,
        outputs=tuple(Tensor(f"out_{tensor.name}", tensor.dtype, tensor.shape) for tensor in inputs),
        golden=GoldenTensors("golden.npz", _SHA256, sample=False),
    )


_REQUEST = message("ModelInferRequest")
CARD = _card()
TAKES = Takes(CARD, Settings())
_TYPED_TAKES = Takes(_card("float16"), Settings())  # which has no field of its type


def read_json(data: bytes) -> None:
    """Read a body of JSON."""
    with suppress(RequestError):
        parse(data, None, CARD.name, "", TAKES)


def read_binary(data: bytes) -> None:
    """Read a body with raw tensors; the input's first two bytes say where its JSON ends."""
    length = int.from_bytes(data[:_LENGTH], "little")
    with suppress(RequestError):
        parse(data[_LENGTH:], b"%d" % length, CARD.name, "", TAKES)


def read_message(data: bytes) -> None:
    """Read a `ModelInferRequest`."""
    for takes in (TAKES, _TYPED_TAKES):
        with suppress(RequestError):
            request = split(data)
            read(message_of(_REQUEST, request.head), request, takes)


def json_seeds() -> Seeds:
    """A request with a value of every datatype, flat and nested, and what may stand beside it."""
    for shape in ([2, 3], [1, 1], [0, 3], [2, 0]):
        yield f"flat-{shape}", _body(shape, nested=False)
        yield f"nested-{shape}", _body(shape, nested=True)
    yield "wishes", json.dumps(
        {
            "id": "a",
            "parameters": {"priority": 1, "timeout": 1000, "binary_data_output": True},
            "inputs": [{"name": "in_string", "shape": [1, 1], "datatype": "BYTES", "data": ["aGk="],
                        "parameters": {"content_type": "base64"}}],
            "outputs": [{"name": "out_in_string", "parameters": {"binary_data": True}}],
        }
    ).encode()  # fmt: skip


def binary_seeds() -> Seeds:
    """Requests whose tensors are raw bytes."""
    for rows, columns in ((2, 3), (1, 1), (2, 0)):
        inputs, raw = [], b""
        for tensor in CARD.inputs:
            datatype = DATATYPES[tensor.dtype]
            width = (
                5 if datatype == "BYTES" else {"bool": 1}.get(tensor.dtype) or int(tensor.dtype.strip("uintfloa")) // 8
            )
            value = b"\x01\0\0\0a" if datatype == "BYTES" else bytes(width)
            raw += value * rows * columns
            size = {"binary_data_size": width * rows * columns}
            inputs.append({"name": tensor.name, "shape": [rows, columns], "datatype": datatype, "parameters": size})
        head = json.dumps({"inputs": inputs}).encode()
        yield f"{rows}-{columns}", len(head).to_bytes(_LENGTH, "little") + head + raw


def _body(shape: list[int], *, nested: bool) -> bytes:
    inputs = []
    for tensor in CARD.inputs:
        value: object = {"b": True, "s": "a"}.get(tensor.dtype[0], 1)
        row = [value] * shape[1]
        data = [row] * shape[0] if nested else row * shape[0]
        inputs.append({"name": tensor.name, "shape": shape, "datatype": DATATYPES[tensor.dtype], "data": data})
    return json.dumps({"inputs": inputs}).encode()


def message_seeds() -> Seeds:
    """Requests over gRPC: tensors in raw form, typed and packed, and typed one by one."""
    for rows, columns in ((2, 3), (1, 1)):
        typed, raw = _REQUEST(model_name=CARD.name), _REQUEST(model_name=CARD.name, id="a")
        for tensor in CARD.inputs:
            datatype = DATATYPES[tensor.dtype]
            size = rows * columns
            given = {"name": tensor.name, "datatype": datatype, "shape": [rows, columns]}
            raw.inputs.add(**given)
            raw.raw_input_contents.append(_raw(datatype) * size)
            if datatype in FIELDS:
                getattr(typed.inputs.add(**given).contents, FIELDS[datatype]).extend([_typed(datatype)] * size)
        raw.outputs.add(name="out_in_float32")
        raw.parameters["priority"].int64_param = 1
        yield f"typed-{rows}-{columns}", typed.SerializeToString()
        yield f"raw-{rows}-{columns}", raw.SerializeToString()


def _raw(datatype: str) -> bytes:
    """One element in raw form."""
    return b"\x01\0\0\0a" if datatype == "BYTES" else bytes(DTYPES[datatype].itemsize)


def _typed(datatype: str) -> object:
    """One element in a field of its type."""
    return {"BYTES": b"a", "BOOL": True}.get(datatype, 1)
