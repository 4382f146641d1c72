"""Clients of the server's gRPC port: NVIDIA's, and bare calls with the service's own messages."""

import queue

import grpc
import pytest

from service.grpc.schema import SERVICE, message


@pytest.fixture(scope="session")
def client(triton, oip):
    with triton.InferenceServerClient(oip.grpc) as client:
        yield client


class Bare:
    """Calls by name, with whatever a client might send: `bare("ServerLive", {...})` gives the answer and the call."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address, [("grpc.max_receive_message_length", -1)])

    def start(self, name: str, fields: dict, **options) -> grpc.Future:
        method = SERVICE.methods_by_name[name]
        answer = message(method.output_type.name)
        call = self.channel.unary_unary(
            f"/{SERVICE.full_name}/{name}", lambda request: request.SerializeToString(), answer.FromString
        )
        return call.future(message(method.input_type.name)(**fields), timeout=options.pop("timeout", 30), **options)

    def stream(self, fields: dict, **options):
        """Send one request, and leave the stream open."""
        kind, answer = message("ModelInferRequest"), message("ModelStreamInferResponse")
        requests = queue.Queue()
        requests.put(kind(**fields))
        call = self.channel.stream_stream(
            f"/{SERVICE.full_name}/ModelStreamInfer", kind.SerializeToString, answer.FromString
        )
        return call(iter(requests.get, None), timeout=30, **options)

    def __call__(self, name: str, fields: dict | None = None, **options):
        return self.start(name, fields or {}, **options).result()


@pytest.fixture(scope="session")
def bare(oip):
    client = Bare(oip.grpc)
    yield client
    client.channel.close()
