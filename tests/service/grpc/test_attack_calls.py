"""Calls that cost or hold much more than they are worth, most of them without a key: others are answered meanwhile."""

import asyncio
import contextlib
import socket
import time

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.grpc.schema import SERVICE, message
from service.grpc.wire import varint
from tests.attack import attacked
from tests.conftest import free_port, serving
from tests.service.grpc.conftest import Bare

WHOLE = 32_000_000  # bytes, the limit of a message
CONNECTIONS = 300
USER = [("authorization", "Bearer user")]
INFER, STREAM = f"/{SERVICE.full_name}/ModelInfer", f"/{SERVICE.full_name}/ModelStreamInfer"
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
REFLECT = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
CODE = grpc.StatusCode


@pytest.fixture(scope="module")
def server(mixed_store, tmp_path_factory):
    settings = {"ZOOSERVE_MODELS": str(mixed_store), "ZOOSERVE_LOAD": "gru,mobilenet_v2", "ZOOSERVE_API_KEYS": "user"}
    settings |= {"ZOOSERVE_GRPC_PORT": str(port := free_port()), "ZOOSERVE_MAX_CONNECTIONS": str(CONNECTIONS)}
    settings |= {"ZOOSERVE_RECEIVE_S": "5", "ZOOSERVE_MAX_BODIES_MB": "40"}
    with serving(tmp_path_factory.mktemp("attacked") / "log", **settings) as server:
        server.wait(200)
        server.grpc = f"127.0.0.1:{port}"
        server.bare = Bare(server.grpc)
        valid_request(server)
        yield server
        server.bare.channel.close()


def valid_request(server) -> None:
    """A probe without a key, and a request with one, over a connection of their own."""
    with grpc.insecure_channel(server.grpc, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        state = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5).status
        assert state == health_pb2.HealthCheckResponse.SERVING
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2, 8]}
        request = message("ModelInferRequest")(model_name="gru", inputs=[tensor], raw_input_contents=[bytes(64)])
        assert channel.unary_unary(INFER)(request.SerializeToString(), timeout=5, metadata=USER)


def status(call) -> grpc.StatusCode:
    try:
        call()
    except grpc.RpcError as error:
        return error.code()
    return CODE.OK


def field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2]) + varint(len(data)) + data


def infer(contents: bytes = b"", *, model: str = "gru", datatype: str = "FP32", shape=(1, 2, 8), raws: bytes = b""):
    """A request with one input, whose typed contents are these bytes."""
    tensor = {"name": "image" if model != "gru" else "x", "datatype": datatype, "shape": shape}
    tensor = message("ModelInferRequest").InferInputTensor(**tensor).SerializeToString()
    head = message("ModelInferRequest")(model_name=model).SerializeToString()
    return head + field(5, tensor + (field(5, contents) if contents else b"")) + raws


def times(unit: bytes, before: int = 200) -> bytes:
    return unit * ((WHOLE - before) // len(unit))


REQUESTS = {
    "inputs": lambda: times(b"\x2a\x00"),
    "outputs": lambda: times(b"\x32\x00"),
    "parameters": lambda: times(b"\x22\x00"),
    "raw contents": lambda: times(b"\x3a\x00"),
    "raw contents behind a request": lambda: infer(raws=times(b"\x3a\x00")),
    "unknown fields": lambda: times(b"\x78\x00"),
    "a large unknown field": lambda: field(15, bytes(WHOLE - 100)),
    "a long name": lambda: field(1, b"a" * (WHOLE - 100)),
    "groups": lambda: times(b"\x0b"),
    "nothing": lambda: bytes(WHOLE - 100),
    "contents again and again": lambda: infer()[:5] + field(5, times(b"\x2a\x00")),
    "shapes": lambda: infer()[:5] + field(5, field(3, times(b"\x01"))),
    "shapes one by one": lambda: infer()[:5] + field(5, times(b"\x18\x01")),
    "parameters of an input": lambda: infer()[:5] + field(5, times(b"\x22\x00")),
    "parameters of one output": lambda: field(1, b"gru") + field(6, times(b"\x12\x00")),
    "numbers": lambda: infer(field(6, times(b"\0\0\0\0"))),
    "numbers one by one": lambda: infer(times(b"\x35\0\0\0\0")),
    "numbers of one byte": lambda: infer(field(3, times(b"\x01")), datatype="INT64"),
    "texts": lambda: infer(times(b"\x42\x00"), model="mobilenet_v2", datatype="BYTES", shape=(15_000_000,)),
    "texts for one": lambda: infer(times(b"\x42\x00"), model="mobilenet_v2", datatype="BYTES", shape=(1,)),
    "empty raw texts": lambda: infer(
        model="mobilenet_v2", datatype="BYTES", shape=(7_999_000,), raws=field(7, bytes(4 * 7_999_000))
    ),
    "rows without elements": lambda: infer(shape=(300_000_000, 0, 8), raws=field(7, b"")),
    "typed rows without elements": lambda: infer(shape=(300_000_000, 0, 8)),
    "contents of contents": lambda: infer(times(b"\x0a\x00")),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_hostile_request_is_refused_in_little_memory(server, name):
    data = REQUESTS[name]()
    assert len(data) <= WHOLE
    with attacked(server) as seen:
        call = server.bare.channel.unary_unary(INFER)
        assert status(lambda: call(data, timeout=30, metadata=USER)) is CODE.INVALID_ARGUMENT
        valid_request(server)
    seen.check()


@pytest.mark.parametrize("name", ["inputs", "numbers of one byte", "empty raw texts"])
def test_a_hostile_request_in_a_stream_is_refused_in_little_memory(server, name):
    with attacked(server) as seen:
        stream = server.bare.channel.stream_stream(STREAM)
        (answer,) = stream(iter([REQUESTS[name]()]), timeout=30, metadata=USER)
        assert message("ModelStreamInferResponse").FromString(answer).error_message
        valid_request(server)
    seen.check()


@pytest.mark.parametrize("path", [INFER, STREAM])
def test_a_request_without_a_key_is_not_read(server, path):
    with attacked(server) as seen:
        for _ in range(5):
            call = server.bare.channel.stream_stream(path)(iter([REQUESTS["inputs"]()]), timeout=30)
            assert status(lambda call=call: list(call)) is CODE.UNAUTHENTICATED
        valid_request(server)
    seen.check(growth=30e6)


@pytest.mark.parametrize(
    ("path", "codes"),
    [
        (f"/{SERVICE.full_name}/ServerMetadata", {CODE.INVALID_ARGUMENT, CODE.UNAUTHENTICATED}),
        (f"/{SERVICE.full_name}/RepositoryModelLoad", {CODE.PERMISSION_DENIED}),
        (f"/{SERVICE.full_name}/ServerLive", {CODE.INVALID_ARGUMENT}),
        (CHECK, {CODE.INVALID_ARGUMENT}),
        (WATCH, {CODE.INVALID_ARGUMENT}),
        (REFLECT, {CODE.INVALID_ARGUMENT, CODE.UNAUTHENTICATED}),
    ],
)
@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_large_messages_of_other_methods_are_refused(server, path, codes, compression):
    data = times(b"\x0a\x00")
    with attacked(server) as seen:
        for metadata in (None, USER):
            call = server.bare.channel.unary_stream(path)(data, timeout=30, metadata=metadata, compression=compression)
            assert status(lambda call=call: list(call)) in codes
        valid_request(server)
    seen.check()


def opened(server, path: str, count: int, metadata=None, requests: list[bytes] = ()) -> list[grpc.StatusCode | None]:
    """Open calls from one client and say no more in them; how each of them ended within some seconds; None: not."""

    async def hold() -> list[grpc.StatusCode | None]:
        async with grpc.aio.insecure_channel(server.grpc) as channel:
            calls = [channel.stream_stream(path)(metadata=metadata) for _ in range(count)]
            for call in calls:
                with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
                    for request in requests:
                        await call.write(request)
            await asyncio.sleep(1)
            for _ in range(3):
                await asyncio.to_thread(valid_request, server)
            ended = [await call.code() if call.done() else None for call in calls]
            for call in calls:
                call.cancel()
            return ended

    return asyncio.run(hold())


@pytest.mark.parametrize("path", [STREAM, INFER, REFLECT, f"/{SERVICE.full_name}/ModelMetadata"])
def test_calls_without_a_key_end_at_once(server, path):
    with attacked(server) as seen:
        assert set(opened(server, path, 3 * CONNECTIONS)) == {CODE.UNAUTHENTICATED}
    seen.check()


@pytest.mark.parametrize("path", [STREAM, INFER, REFLECT])
def test_idle_calls_are_closed_for_new_ones(server, path):
    """With a key: more than there are places for."""
    with attacked(server) as seen:
        ended = opened(server, path, 2 * CONNECTIONS, USER)
    assert set(ended) == {None, CODE.RESOURCE_EXHAUSTED}
    seen.check()


@pytest.mark.parametrize(("path", "requests"), [(CHECK, []), (WATCH, []), (WATCH, [b""])])
def test_idle_probe_calls_do_not_block_other_probes(server, path, requests):
    with attacked(server) as seen:
        opened(server, path, 2 * CONNECTIONS, requests=requests)
    seen.check()


def test_calls_without_a_message_end_after_a_time(server):
    with attacked(server) as seen:
        call = server.bare.channel.stream_stream(INFER)(iter(lambda: time.sleep(60), 0), metadata=USER, timeout=20)
        started = time.monotonic()
        assert status(lambda: list(call)) is CODE.DEADLINE_EXCEEDED
        assert 4 < time.monotonic() - started < 15
    seen.check()


def test_too_much_metadata_is_refused(server):
    metadata = [*USER, *((f"name-{number}", "a" * 1000) for number in range(1000))]
    with attacked(server) as seen:
        code = status(lambda: server.bare.channel.unary_unary(INFER)(infer(), timeout=30, metadata=metadata))
        assert code is CODE.RESOURCE_EXHAUSTED
        valid_request(server)
    seen.check()


def test_a_large_valid_request_is_answered(server):
    """Typed and raw contents of 16 MB."""
    shape = [1, 500_000, 8]
    data = np.zeros(shape, "<f4").tobytes()
    outputs = field(6, field(1, b"logits"))
    for request in (infer(field(6, data), shape=shape), infer(shape=shape, raws=field(7, data))):
        with attacked(server) as seen:
            assert server.bare.channel.unary_unary(INFER)(request + outputs, timeout=60, metadata=USER)
        seen.check()


def test_many_concurrent_large_requests_stay_within_the_memory_limit(server):
    """Together they have more than may be held: some are answered, others told to come again."""
    shape = [1, 500_000, 8]
    request = infer(shape=shape, raws=field(7, bytes(4 * 8 * shape[1]))) + field(6, field(1, b"logits"))
    with attacked(server) as seen:
        calls = [server.bare.channel.unary_unary(INFER).future(request, timeout=60, metadata=USER) for _ in range(8)]
        valid_request(server)
        codes = [call.code() for call in calls]
    assert set(codes) <= {CODE.OK, CODE.RESOURCE_EXHAUSTED}
    assert CODE.OK in codes
    seen.check(growth=600e6)  # the answers hold 32 MB each while they are computed


def test_many_idle_connections_do_not_block_others(server):
    """A server's own limit on connections holds; those that say nothing are closed."""
    with contextlib.ExitStack() as stack, attacked(server) as seen:
        host, port = server.grpc.split(":")
        silent = [stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(CONNECTIONS // 2)]
        valid_request(server)
        for connection in silent[:3]:
            connection.settimeout(30)
            while connection.recv(1024):  # its settings, and then the end
                pass
    seen.check()
