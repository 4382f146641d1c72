"""The transport: health, reflection, keys, deadlines, clients that go, sizes, and what is told beside the answer."""

import contextlib
import re
import socket
import time

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from service.grpc.schema import SERVICE
from tests.conftest import free_port, serving
from tests.service.grpc.conftest import Bare

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def tensors(*shape: int, model: str = "gru", **fields) -> dict:
    tensor = {"name": "x", "datatype": "FP32", "shape": shape}
    return {"model_name": model, "inputs": [tensor], "raw_input_contents": [np.zeros(shape, "<f4").tobytes()]} | fields


LONG = tensors(8, 60_000, 8, outputs=[{"name": "logits"}])  # some tenths of a second on a core


def refused(call) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value


def counted(server, status: str, model: str = "gru") -> float:
    pattern = rf'zooserve_requests_total{{code="{status}",model="{model}",task="\w*"}} (\S+)'
    found = re.search(pattern, server.client.get("/metrics").text)
    return float(found[1]) if found else 0.0


def under_way(server) -> float:
    return float(re.search(r'zooserve_queue_depth{model="gru"} (\S+)', server.client.get("/metrics").text)[1])


def wait_for(condition, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_health_checks_are_answered(bare):
    stub = health_pb2_grpc.HealthStub(bare.channel)
    for service in ("", SERVICE.full_name):
        assert stub.Check(health_pb2.HealthCheckRequest(service=service)).status == SERVING
    error = refused(lambda: stub.Check(health_pb2.HealthCheckRequest(service="nothing")))
    assert error.code() is grpc.StatusCode.NOT_FOUND


def test_reflection_returns_all_definitions(bare):
    database = ProtoReflectionDescriptorDatabase(bare.channel)
    services = database.get_services()
    assert {SERVICE.full_name, "grpc.health.v1.Health"} <= set(services)
    pool = DescriptorPool(database)
    for service in services:
        for method in pool.FindServiceByName(service).methods:
            assert method.input_type.full_name
    assert pool.FindServiceByName(SERVICE.full_name).methods_by_name["ModelInfer"].input_type.fields_by_name["inputs"]


def test_typed_contents_are_answered_with_typed_contents(bare, run_alone):
    x = np.random.default_rng(1).random((1, 2, 8), np.float32)
    tensor = {"name": "x", "datatype": "FP32", "shape": x.shape, "contents": {"fp32_contents": x.ravel()}}
    answer = bare("ModelInfer", {"model_name": "gru", "inputs": [tensor]})
    assert not answer.raw_output_contents
    for output in answer.outputs:
        got = np.array(output.contents.fp32_contents).reshape(output.shape)
        np.testing.assert_allclose(got, run_alone("gru", x)[output.name], rtol=1e-4, atol=1e-5)


def test_an_image_in_typed_contents_is_answered(bare, coffee):
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": [coffee]}}
    (output,) = bare("ModelInfer", {"model_name": "yolov4_tiny", "inputs": [tensor]}).outputs
    assert b'"label":"cup"' in output.contents.bytes_contents[0]


def test_trailing_metadata_has_request_id_and_timing(bare):
    call = bare.start("ModelInfer", tensors(1, 2, 8), metadata=[("x-request-id", "seven")])
    told = dict(call.trailing_metadata())
    assert told["x-request-id"] == "seven"
    assert "infer;dur=" in told["server-timing"]
    call = bare.start("ModelInfer", tensors(1, 2, 8, model="nothing"), metadata=[("x-request-id", "eight")])
    assert refused(call.result).code() is grpc.StatusCode.NOT_FOUND
    assert dict(call.trailing_metadata())["x-request-id"] == "eight"


@pytest.mark.parametrize("name", ["ServerMetadata", "ModelInfer"])
def test_bytes_that_are_not_a_message_are_refused(bare, name):
    call = bare.channel.unary_unary(f"/{SERVICE.full_name}/{name}")
    error = refused(lambda: call(b"\xff" * 50, timeout=30))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert f"valid inference.{name}Request" in error.details()
    stream = bare.channel.stream_stream(f"/{SERVICE.full_name}/ModelStreamInfer")
    (answer,) = stream(iter([b"\xff" * 50]), timeout=30)
    assert b"valid inference.ModelInferRequest" in answer


def test_both_field_numbers_of_a_models_name_are_accepted(bare):
    """Its message has the name as field 1."""
    metadata = [("x-api-key", "admin-key")]
    answer = bare("RepositoryModelLoad", {"repository_name": "gru"}, metadata=metadata)
    assert (answer.model_name, answer.isLoaded) == ("gru", True)
    error = refused(lambda: bare("RepositoryModelUnload", {"model_name": "nothing"}, metadata=metadata))
    assert error.code() is grpc.StatusCode.NOT_FOUND


def test_a_passed_deadline_ends_the_call(bare, oip):
    started = time.monotonic()
    bare("ModelInfer", LONG)
    too_short = (time.monotonic() - started) / 4
    before = counted(oip, "504")
    assert refused(lambda: bare("ModelInfer", LONG, timeout=too_short)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    wait_for(lambda: counted(oip, "504") == before + 1)


def test_a_cancelled_call_is_counted_and_its_jobs_are_abandoned(bare, oip):
    before = counted(oip, "499")
    calls = [bare.start("ModelInfer", LONG) for _ in range(6)]
    wait_for(lambda: under_way(oip) >= 2)
    for call in calls:
        call.cancel()
    wait_for(lambda: counted(oip, "499") > before and not under_way(oip))
    started = time.monotonic()
    bare("ModelInfer", tensors(1, 2, 8))
    assert time.monotonic() - started < 10, "what nobody waits for is not computed first"


@pytest.fixture(scope="module")
def strict(mixed_store, tmp_path_factory):
    """A server with keys and small limits, which has one worker."""
    settings = {
        "ZOOSERVE_API_KEYS": "user",
        "ZOOSERVE_MAX_BODY_MB": "6",
        "ZOOSERVE_MAX_QUEUE": "2",
        "ZOOSERVE_MAX_CONNECTIONS": "20",
    }
    settings |= {"ZOOSERVE_LOAD": "gru", "ZOOSERVE_THREADS": "1", "ZOOSERVE_MODELS": str(mixed_store)}
    settings |= {"ZOOSERVE_GRPC_PORT": str(port := free_port()), "ZOOSERVE_DRAIN_S": "1.5"}
    with serving(tmp_path_factory.mktemp("strict") / "log", **settings) as server:
        server.wait(200)
        server.client.headers["X-API-Key"] = "user"
        server.address = ("127.0.0.1", port)
        server.bare = Bare(f"127.0.0.1:{port}")
        yield server


USER = [("authorization", "Bearer user")]


@pytest.mark.parametrize(
    "name", ["ModelInfer", "ModelMetadata", "ServerMetadata", "ModelStatistics", "RepositoryIndex"]
)
def test_calls_without_a_key_are_refused(strict, name):
    for metadata in ([], [("authorization", "Bearer nobody")]):
        error = refused(lambda metadata=metadata: strict.bare(name, metadata=metadata))
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert (
        refused(lambda: strict.bare("RepositoryModelLoad", metadata=USER)).code() is grpc.StatusCode.PERMISSION_DENIED
    )
    assert strict.bare("ServerReady").ready
    assert strict.bare("ModelReady", {"name": "gru"}, metadata=USER).ready
    assert strict.bare("ModelInfer", tensors(1, 2, 8), metadata=USER).model_name == "gru"


def test_connections_over_the_limit_are_closed(strict):
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # and its empty settings
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(24):
            connection = stack.enter_context(socket.create_connection(strict.address, timeout=10))
            connection.sendall(preface)
            try:
                found.append(connection.recv(9))
            except ConnectionError:
                found.append(b"")
        assert found[0]
        assert not all(found), "20 at once are allowed"
    assert strict.bare("ModelInfer", tensors(1, 2, 8), metadata=USER).model_name == "gru"


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_a_message_above_the_limit_is_refused(strict, compression):
    body = tensors(25, 10_000, 8)  # 8 MB, or a few KB of zeros that are to become 8 MB
    error = refused(lambda: strict.bare("ModelInfer", body, metadata=USER, compression=compression))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in error.details()


def test_a_full_queue_names_the_time_of_a_retry(strict):
    calls = [strict.bare.start("ModelInfer", tensors(1, 20_000, 8), metadata=USER) for _ in range(12)]
    codes = [call.code() for call in calls]
    assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    full = calls[codes.index(grpc.StatusCode.RESOURCE_EXHAUSTED)]
    assert int(dict(full.trailing_metadata())["grpc-retry-pushback-ms"]) > 0


def test_a_stop_is_announced_and_loses_no_call(strict):
    """The last test of this server."""
    watch = health_pb2_grpc.HealthStub(strict.bare.channel).Watch(health_pb2.HealthCheckRequest())
    assert next(watch).status == SERVING
    strict.process.terminate()
    assert next(watch).status == NOT_SERVING
    assert strict.bare("ModelInfer", tensors(1, 2, 8), metadata=USER).model_name == "gru"
    stream = strict.bare.stream(tensors(1, 2, 8), metadata=USER)
    assert next(stream).infer_response.model_name == "gru"
    calls = [strict.bare.start("ModelInfer", tensors(1, 60_000, 8), metadata=USER) for _ in range(2)]
    assert list(stream) == [], "it ends in order, though its client would go on"
    refused(lambda: list(watch))
    assert [call.result().model_name for call in calls] == ["gru", "gru"]
    assert strict.process.wait(20) is not None
