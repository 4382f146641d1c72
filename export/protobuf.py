"""Messages of other frameworks' files, made from compiled .proto files. `export.caffe` and `export.paddle` call it.

The compiled form needs no generated code, which is bound to versions of protobuf. Fields that a .proto file leaves out
are skipped when a file is read.
"""

from pathlib import Path
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message

from export.kinds import advice
from zoo.errors import ExportError


def read_schema(compiled: Path) -> dict[str, type[Message]]:
    """Make message classes, by name, from a .proto file that protoc compiled (`-o`).

    A packed `repeated float` may be declared as `optional bytes`: the bytes in the file are the same, and numpy reads
    them hundreds of times faster than a list of Python's floats.
    """
    pool = DescriptorPool()
    (file,) = FileDescriptorSet.FromString(compiled.read_bytes()).file
    pool.Add(file)
    found = (pool.FindMessageTypeByName(f"{file.package}.{message.name}") for message in file.message_type)
    return {message.name: message_factory.GetMessageClass(message) for message in found}


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
        raise ExportError(f"{path}: not {what}: {advice(path) or error}") from error
    return message
