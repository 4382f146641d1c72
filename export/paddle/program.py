"""Paddle's files: the program, a list of operators on named variables, and the parameters' values.

`export.families.paddle` calls `read_program` and `read_parameters`.
"""

import io
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from export.protobuf import read_message, read_schema
from zoo.errors import ExportError

SCHEMA = read_schema(Path(__file__).with_name("framework.binpb"))
_VALUES = {0: "i", 1: "f", 2: "s", 3: "ints", 4: "floats", 5: "strings", 6: "b", 7: "bools", 9: "l", 11: "longs"}
"""The field that holds an attribute of each type; blocks, the types that are left out, are of loops and branches."""
_TENSOR = 7  # the type of a variable that is one
_FLOAT32 = 5  # the type of its numbers


class Operator(NamedTuple):
    """One operator: names of the variables that it reads and writes, by parameter, and its settings."""

    kind: str
    inputs: Mapping[str, tuple[str, ...]]
    outputs: Mapping[str, tuple[str, ...]]
    settings: Mapping[str, Any]
    where: str


class Program(NamedTuple):
    """What runs, in order.

    Attributes:
        operators: without `feed` and `fetch`.
        inputs: shapes of what is fed to it, by variable. -1 stands for any size.
        outputs: variables that are fetched from it.
        parameters: shapes of its trained variables, by name.
    """

    operators: tuple[Operator, ...]
    inputs: Mapping[str, tuple[int, ...]]
    outputs: tuple[str, ...]
    parameters: Mapping[str, tuple[int, ...]]


def read_program(path: Path) -> Program:
    """Read a .pdmodel.

    Raises:
        ExportError: not such a file.
    """
    message = read_message(path, SCHEMA["ProgramDesc"], "a Paddle program")
    if not message.blocks or not message.blocks[0].ops:
        raise ExportError(f"{path}: not a Paddle program: it has no operators")
    block = message.blocks[0]
    found = [_operator(op, f"{path}: operator {index}, {op.type}") for index, op in enumerate(block.ops)]
    shapes = {v.name: tuple(v.type.lod_tensor.tensor.dims) for v in block.vars if v.type.type == _TENSOR}
    trained = {variable.name for variable in block.vars if variable.persistable and variable.type.type == _TENSOR}
    try:
        inputs = {op.outputs["Out"][0]: shapes[op.outputs["Out"][0]] for op in found if op.kind == "feed"}
        outputs = tuple(op.inputs["X"][0] for op in found if op.kind == "fetch")
    except LookupError as error:
        raise ExportError(f"{path}: not a Paddle program: {error} is missing from what it feeds or fetches") from error
    operators = tuple(op for op in found if op.kind not in {"feed", "fetch"})
    return Program(operators, inputs, outputs, {name: shapes[name] for name in sorted(trained)})


def _operator(op: Any, where: str) -> Operator:
    settings = {a.name: getattr(a, _VALUES[a.type]) for a in op.attrs if a.type in _VALUES}
    inputs, outputs = ({v.parameter: tuple(v.arguments) for v in side} for side in (op.inputs, op.outputs))
    return Operator(op.type, inputs, outputs, settings, where)


def read_parameters(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, npt.NDArray[np.float32]]:
    """Read a .pdiparams: the tensors of all trained variables one after the other, in the order of their names.

    Raises:
        ExportError: not such a file, or not of the program whose `shapes` these are.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ExportError(f"{path}: {error.strerror}") from error
    file = io.BytesIO(content)
    values = {}
    try:
        for name, shape in sorted(shapes.items()):
            found, values[name] = _read_tensor(file)
            if found != shape:
                raise ExportError(f"{path}: {name} is {found}, but the program's is {shape}: it belongs to another")
    except (struct.error, DecodeError, ValueError) as error:
        raise ExportError(f"{path}: not the parameters of a Paddle program, or damaged: {error}") from error
    if left := len(content) - file.tell():
        raise ExportError(f"{path}: {left:,} bytes are left over after the program's parameters: it belongs to another")
    return values


def _read_tensor(file: io.BytesIO) -> tuple[tuple[int, ...], npt.NDArray[np.float32]]:
    """Read one tensor: two versions and no levels of detail, then its description and its numbers, little-endian."""
    version, levels, tensor_version, size = struct.unpack("<IQIi", file.read(20))
    if version or levels or tensor_version or size < 0:
        raise ValueError(f"a tensor begins with {version, levels, tensor_version, size}")
    description: Any = SCHEMA["TensorDesc"]()
    description.ParseFromString(file.read(size))
    if description.data_type != _FLOAT32:
        raise ValueError(f"a tensor is of the type {description.data_type}; only float32 is known")
    shape = tuple(description.dims)
    return shape, np.frombuffer(file.read(4 * int(np.prod(shape))), "<f4").reshape(shape).copy()
