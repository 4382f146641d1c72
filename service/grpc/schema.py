"""The messages of `open_inference.proto`, made from its compiled form in a pool of their own.

So they need no generated code, which is bound to versions of protobuf, and stand beside clients' that have the same
names in the same process.
"""

from importlib.resources import files
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool


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
