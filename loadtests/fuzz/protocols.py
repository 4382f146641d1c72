"""The bodies of the Open Inference Protocol as fuzz targets: JSON, JSON with raw tensors behind it, and gRPC messages.

Every request is for a model that takes a tensor of each kind, with sides that are free.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import get_args

from service.errors import RequestError
from service.http.oip_body import parse
from service.oip.takes import Takes
from service.oip.tensors import DATATYPES
from service.settings import Settings
from zoo.card import DType, GoldenTensors, Licence, Parity, Provenance, ServedTensors, Tensor

Seeds = Iterator[tuple[str, bytes]]
_LENGTH = 2  # bytes before a body that say where its JSON ends
_SHA256 = 64 * "0"


def _card() -> ServedTensors:
    inputs = tuple(Tensor(f"in_{dtype}", dtype, (None, None)) for dtype in get_args(DType))
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


CARD = _card()
TAKES = Takes(CARD, Settings())


def read_json(data: bytes) -> None:
    """Read a body of JSON."""
    with suppress(RequestError):
        parse(data, None, CARD.name, "", TAKES)


def read_binary(data: bytes) -> None:
    """Read a body with raw tensors; the input's first two bytes say where its JSON ends."""
    length = int.from_bytes(data[:_LENGTH], "little")
    with suppress(RequestError):
        parse(data[_LENGTH:], b"%d" % length, CARD.name, "", TAKES)


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
