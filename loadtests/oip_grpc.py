"""The Open Inference Protocol over gRPC, as a client of a server under test: its models, and images to answer.

The messages are those of `service/grpc/open_inference.proto`, which are the protocol's own.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message_factory import GetMessages

from loadtests.served import Served, ServedModel
from loadtests.target import KEY_VARIABLE, Target, TargetError

_SCHEMA = Path(__file__).parent.parent / "service" / "grpc" / "open_inference.binpb"
_MESSAGES = GetMessages(FileDescriptorSet.FromString(_SCHEMA.read_bytes()).file)  # by their full names
_SERVICE = "inference.GRPCInferenceService"
_STATES = {"READY": "ready", "LOADING": "loading", "UNAVAILABLE": "failed"}
_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
]


def open_channel(target: Target) -> "grpc.aio.Channel":
    """Return a channel to a target. It connects with the first call.

    Raises:
        TargetError: the file of certificates cannot be read.
    """
    address = f"[{target.ip}]:{target.port}" if ":" in target.ip else f"{target.ip or target.host}:{target.port}"
    if target.scheme == "grpc":
        return grpc.aio.insecure_channel(address, _OPTIONS)
    try:
        authorities = target.ca_file.read_bytes() if target.ca_file else None
    except OSError as error:
        raise TargetError(f"{target.ca_file} cannot be read: {error.strerror}") from error
    # The address is the one that was checked; the certificate must be for the name.
    options = [*_OPTIONS, ("grpc.ssl_target_name_override", target.host)]
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(authorities), options)


def metadata(target: Target) -> tuple[tuple[str, str], ...]:
    """Return what every call carries: the key, where there is one."""
    return tuple((name.lower(), value) for name, value in target.headers.items())


def infer_request(model: str, image: bytes, options: Mapping[str, str]) -> bytes:
    """Return an encoded `ModelInferRequest` for one encoded image (JPEG, PNG, ...) and the task's result as JSON.

    Args:
        model: its name.
        image: the file.
        options: of the task, such as `top_k`; what is a number is sent as one.
    """
    size = len(image).to_bytes(4, "little")
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1]}
    request = _message("ModelInferRequest")(
        model_name=model, inputs=[tensor], outputs=[{"name": "result"}], raw_input_contents=[size + image]
    )
    for name, value in options.items():
        _set(request.parameters[name], value)
    return bytes(request.SerializeToString())


def _message(name: str) -> Any:
    """Return the class of one of the protocol's messages."""
    return _MESSAGES[f"inference.{name}"]


def _set(parameter: Any, value: str) -> None:
    for field, convert in (("int64_param", int), ("double_param", float)):
        try:
            setattr(parameter, field, convert(value))
        except ValueError:
            continue
        return
    parameter.string_param = value


def infer_call(channel: "grpc.aio.Channel") -> Any:
    """Return the call `ModelInfer`: encoded request in, encoded response out, which `result_of` reads."""
    return channel.unary_unary(f"/{_SERVICE}/ModelInfer")


def result_of(response: bytes) -> bytes:
    """Return the task's result, JSON, of an encoded `ModelInferResponse`.

    Raises:
        ValueError: it holds none.
    """
    contents = _message("ModelInferResponse").FromString(response).raw_output_contents
    if not contents:
        raise ValueError("the response holds no result")
    return bytes(contents[0][4:])


def served_over_grpc(target: Target, timeout: float) -> Served:
    """Ask a server which models it has; see `served.served`."""
    return asyncio.run(_served(target, timeout))


async def _served(target: Target, timeout: float) -> Served:
    async with open_channel(target) as channel:

        async def ask(name: str, fields: dict[str, Any]) -> Any:
            call = channel.unary_unary(f"/{_SERVICE}/{name}")
            request = _message(f"{name}Request")(**fields).SerializeToString()
            answer = await call(request, timeout=timeout, metadata=metadata(target))
            return _message(f"{name}Response").FromString(answer)

        try:
            listed = (await ask("RepositoryIndex", {})).models
            models = []
            for one in listed:
                state = _STATES.get(one.state, one.state.lower())
                task = (await ask("ModelMetadata", {"name": one.name})).properties["task"] if state == "ready" else ""
                if task != "pipeline":  # `/v1/models` lists none either
                    models.append(ServedModel(one.name, task, one.version, state))
        except grpc.aio.AioRpcError as error:
            raise TargetError(unreachable(target, error)) from error
    reasons = [f"{one.name} is {one.state.lower()}: {one.reason}" for one in listed if one.state != "READY"]
    return Served(tuple(models), "; ".join(reasons))


def unreachable(target: Target, error: "grpc.aio.AioRpcError") -> str:
    """Say why a server could not be asked, and what to do."""
    code, details = error.code(), error.details() or ""
    if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        wrong = "it does not take this key" if target.api_key else "it needs a key"
        return f"{target.url} answers {code.name}: {wrong}: --api-key or {KEY_VARIABLE}"
    if "CERTIFICATE_VERIFY_FAILED" in details or "Hostname Verification" in details:
        return f"{target.url}: its certificate is not trusted ({details}): --ca-file names its authority"
    if code is grpc.StatusCode.UNAVAILABLE:
        start = "start it with ZOOSERVE_GRPC_PORT=8001, and grpcs:// where it speaks TLS"
        return f"{target.url} is not reachable ({start}): {details}"
    return f"{target.url} answers {code.name}: {details}"
