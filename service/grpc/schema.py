"""The messages of `open_inference.proto`, made from its compiled form in a pool of their own.

So they need no generated code, which is bound to versions of protobuf, and stand beside clients' that have the same
names in the same process.
"""

from collections.abc import Collection, Mapping, Sequence
from importlib.resources import files
from typing import Any, Protocol

from google.protobuf import message_factory
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message


def _compiled() -> DescriptorPool:
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(files(__package__).joinpath("open_inference.binpb").read_bytes()).file:
        pool.Add(file)
    return pool


POOL = _compiled()
SERVICE: ServiceDescriptor = POOL.FindServiceByName("inference.GRPCInferenceService")


def message(name: str) -> Any:
    """The class of a message."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"{SERVICE.file.package}.{name}"))


def made(name: str, /, **fields: object) -> Message:
    """Make a message with these fields."""
    instance: Message = message(name)(**fields)
    return instance


class ModelRequest(Protocol):
    """A request that names a model; an empty version is the one that is loaded."""

    name: str
    version: str


class IndexRequest(Protocol):
    """`RepositoryIndexRequest`."""

    ready: bool


class RepositoryRequest(Protocol):
    """A request to load or unload a model. Clients put its name into either field."""

    model_name: str
    repository_name: str
    parameters: Collection[str]


class Parameter(Protocol):
    """`InferParameter`: a value in a field of its type."""

    def WhichOneof(self, oneof_group: str) -> str | None:  # noqa: N802 - protobuf's name
        """Return the name of the field that has the value; None: none has."""


class InputTensor(Protocol):
    """`InferInputTensor` without its contents."""

    name: str
    datatype: str
    shape: Sequence[int]
    parameters: Mapping[str, Parameter]


class RequestedOutput(Protocol):
    """`InferRequestedOutputTensor`."""

    name: str
    parameters: Mapping[str, Parameter]


class InferRequest(Protocol):
    """`ModelInferRequest` without its tensors."""

    model_name: str
    model_version: str
    id: str
    inputs: Sequence[InputTensor]
    outputs: Sequence[RequestedOutput]
    parameters: Mapping[str, Parameter]
