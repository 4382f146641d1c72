"""Messages of other frameworks' files, made from the few lines of their .proto files that are needed to read them.

The families `caffe` and `paddle` call it. Fields that are left out of a schema are skipped when a file is read.
"""

import re
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.message import DecodeError, Message

from zoo.errors import ExportError

_LINE = re.compile(
    r"(?P<kind>message|enum) (?P<opened>\w+) \{"
    r"|(?P<closed>\})"
    r"|(?P<label>optional|repeated) (?P<type>\w+) (?P<field>\w+) = (?P<number>\d+)"
    r"(?: \[default = (?P<default>[\w.-]+)\])?;"
    r"|(?P<value>\w+) = (?P<code>\d+);"
)


def read_schema(name: str, text: str) -> dict[str, type[Message]]:
    """Make message classes, by name, from a proto2 schema with one declaration a line and no options but defaults.

    A packed `repeated float` may be declared as `optional bytes`: that is how it lies in the file, and numpy reads the
    bytes hundreds of times faster than a list of Python's floats.

    Raises:
        ValueError: naming the line that is not understood.
    """
    file = FileDescriptorProto(name=f"{name}.proto", package=name, syntax="proto2")
    scope: list[Any] = [file]
    for line in filter(None, map(str.strip, text.splitlines())):
        found = _LINE.fullmatch(line)
        if found is None:
            raise ValueError(f"the schema {name} has a line that is not understood: {line!r}")
        if found["kind"] == "message":
            inner = file.message_type if scope[-1] is file else scope[-1].nested_type
            scope.append(inner.add(name=found["opened"]))
        elif found["kind"] == "enum":
            scope.append(scope[-1].enum_type.add(name=found["opened"]))
        elif found["closed"]:
            scope.pop()
        elif found["label"]:
            _add_field(scope[-1], found)
        else:
            scope[-1].value.add(name=found["value"], number=int(found["code"]))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    messages = (pool.FindMessageTypeByName(f"{name}.{message.name}") for message in file.message_type)
    return {message.name: message_factory.GetMessageClass(message) for message in messages}


def _add_field(message: DescriptorProto, found: re.Match[str]) -> None:
    field = message.field.add(name=found["field"], number=int(found["number"]))
    field.label = FieldDescriptorProto.Label.Value(f"LABEL_{found['label'].upper()}")
    scalar = f"TYPE_{found['type'].upper()}"
    if scalar in FieldDescriptorProto.Type.keys():  # noqa: SIM118, an enum's wrapper, not a dict
        field.type = FieldDescriptorProto.Type.Value(scalar)
    else:
        field.type_name = found["type"]  # of a message or an enum: the pool finds out which
    if found["default"]:
        field.default_value = found["default"]


def read_message(path: Path, kind: type[Message], what: str) -> Any:
    """Read a file that holds one message.

    Raises:
        ExportError: the file is no such message; `what` says what was expected.
    """
    message = kind()
    try:
        message.ParseFromString(path.read_bytes())
    except OSError as error:
        raise ExportError(f"{path}: {error.strerror}") from error
    except DecodeError as error:
        raise ExportError(f"{path}: not {what}: {error}") from error
    return message
