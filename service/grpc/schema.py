"""The messages of `open_inference.proto`, created from its compiled descriptors in their own descriptor pool.

So there is no generated code, which would require certain versions of protobuf, and no conflict with messages of the
same names that a client library in the same process defines.
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
    """Return the class of the message with this name."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"{SERVICE.file.package}.{name}"))


def made(name: str, /, **fields: object) -> Message:
    """Make a message of this name, with these fields."""
    instance: Message = message(name)(**fields)
    return instance


class ModelRequest(Protocol):
    """A request that names a model; an empty version means the one that is loaded."""

    name: str
    version: str


class IndexRequest(Protocol):
    """`RepositoryIndexRequest`."""

    ready: bool


class RepositoryRequest(Protocol):
    """A request to load or unload a model. Clients use either of the two fields for its name."""

    model_name: str
    repository_name: str
    parameters: Collection[str]


class Parameter(Protocol):
    """`InferParameter`: a value in a field of its type."""

    def WhichOneof(self, oneof_group: str) -> str | None:  # noqa: N802 - protobuf's name
        """Return the name of the field that has the value, or None."""


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
