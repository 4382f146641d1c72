"""The messages are compiled from the file that is beside them, and are on the wire what clients' are."""

from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from service.grpc import schema

FOLDER = Path(schema.__file__).parent


def test_the_compiled_file_is_up_to_date(tmp_path):
    from grpc_tools import protoc

    fresh = tmp_path / "fresh.binpb"
    assert protoc.main(["", f"-I{FOLDER}", f"-o{fresh}", "open_inference.proto"]) == 0
    kept = (FOLDER / "open_inference.binpb").read_bytes()
    assert FileDescriptorSet.FromString(kept) == FileDescriptorSet.FromString(fresh.read_bytes())


def fields(descriptor: Descriptor) -> dict[str, tuple]:
    """Number, type and count of every field, also of messages within."""
    found = {}
    for field in descriptor.fields:
        kind = field.message_type or field.enum_type
        found[field.name] = (field.number, field.type, field.is_repeated, kind and kind.full_name)
    return found | {f"{n.name}.{name}": known for n in descriptor.nested_types for name, known in fields(n).items()}


@pytest.mark.parametrize(
    ("client", "ours_alone"),
    [
        (
            "triton",
            {
                "ModelMetadataResponse.properties",  # the specification's
                "RepositoryModelLoadResponse.model_name",  # KServe's
                "RepositoryModelLoadResponse.isLoaded",
                "RepositoryModelUnloadResponse.model_name",
                "RepositoryModelUnloadResponse.isUnloaded",
            },
        ),
        (
            "kserve",
            {
                "ModelMetadataResponse.properties",
                "InferParameter.double_param",
                "InferParameter.uint64_param",
                "RepositoryModelLoadRequest.repository_name",  # see the request: both numbers of `model_name` are read
                "RepositoryModelLoadRequest.parameters",
                "RepositoryModelUnloadRequest.repository_name",
                "RepositoryModelUnloadRequest.parameters",
            },
        ),
    ],
)
def test_fields_have_the_names_and_numbers_of_the_clients(request, client, ours_alone):
    if client == "triton":
        theirs = request.getfixturevalue("triton").service_pb2.DESCRIPTOR
        others = [theirs, *theirs.dependencies]
    else:
        pytest.importorskip("kserve")
        from kserve.protocol.grpc import grpc_predict_v2_pb2

        others = [grpc_predict_v2_pb2.DESCRIPTOR]
    known = {name: message for file in others for name, message in file.message_types_by_name.items()}
    alone = set()
    for name, message in schema.SERVICE.file.message_types_by_name.items():
        if name not in known:
            assert client == "kserve", name
            continue
        wanted = fields(known[name])
        for field, ours in fields(message).items():
            if field.startswith(("PropertiesEntry.", "ParametersEntry.")) and field not in wanted:
                continue  # of a map that is named below
            if field not in wanted:
                alone.add(f"{name}.{field}")
            elif (client, name, field) not in {
                ("kserve", "RepositoryModelLoadRequest", "model_name"),
                ("kserve", "RepositoryModelUnloadRequest", "model_name"),
            }:
                assert ours == wanted[field], (name, field)
    assert alone == ours_alone
    methods = others[0].services_by_name["GRPCInferenceService"].methods_by_name
    for name, method in schema.SERVICE.methods_by_name.items():
        if name in methods:
            same = (method.client_streaming, method.server_streaming)
            assert same == (methods[name].client_streaming, methods[name].server_streaming)
