"""NVIDIA's own gRPC client, sync, async and streaming."""

import asyncio
import json
import queue

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from tests.service.conftest import KEY

METADATA = {name.lower(): value for name, value in KEY.items()}


@pytest.fixture(scope="module")
def tensor(triton):
    def make(name: str, array: np.ndarray):
        datatype = "BYTES" if array.dtype == object else {"uint8": "UINT8", "float32": "FP32"}[array.dtype.name]
        given = triton.InferInput(name, list(array.shape), datatype)
        return given.set_data_from_numpy(array)

    return make


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).random(shape, np.float32)


def test_metadata_configuration_and_readiness(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("gru")
    assert client.is_model_ready("gru", "1")
    assert not client.is_model_ready("gru", "2")
    assert not client.is_model_ready("nothing")
    assert client.get_server_metadata(as_json=True)["name"] == "zooserve"
    metadata = client.get_model_metadata("gru", as_json=True)
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "-1", "8"]}]
    config = client.get_model_config("mobilenet_v2").config
    assert config.max_batch_size == 32
    assert config.HasField("dynamic_batching")
    assert [(one.name, list(one.dims), one.optional) for one in config.input] == [
        ("images", [224, 224, 3], True),
        ("image", [1], True),
    ]
    assert config.output[0].data_type == 11, "TYPE_FP32"


@pytest.mark.parametrize(("model", "shape"), [("gru", (1, 3, 8)), ("gru", (3, 11, 8)), ("style", (2, 3, 40, 56))])
def test_tensors_are_answered_with_tensors(client, tensor, run_alone, model, shape):
    x = noise(*shape)
    result = client.infer(model, [tensor("x", x)], request_id="seven")
    assert (result.get_response().id, result.get_response().model_version) == ("seven", "1")
    for name, want in run_alone(model, x).items():
        np.testing.assert_allclose(result.as_numpy(name), want, rtol=1e-4, atol=1e-5)


def test_only_requested_outputs_are_returned(triton, client, tensor):
    outputs = [triton.InferRequestedOutput("logits")]
    response = client.infer("gru", [tensor("x", noise(1, 2, 8))], outputs=outputs).get_response()
    assert [output.name for output in response.outputs] == ["logits"]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests_are_answered(client, tensor, run_alone, algorithm):
    x = noise(1, 3, 64, 64)
    result = client.infer("style", [tensor("x", x)], compression_algorithm=algorithm)
    np.testing.assert_allclose(result.as_numpy("y"), run_alone("style", x)["y"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [[1], [2], [2, 1]])
def test_encoded_images_get_the_answer_of_v1(client, tensor, oip, coffee, shape):
    images = np.empty(shape, object)
    images[:] = coffee
    result = client.infer("mobilenet_v2", [tensor("image", images)], parameters={"top_k": 2})
    expected = oip.client.post("/v1/classify?model=mobilenet_v2&top_k=2", content=coffee).json()
    assert [json.loads(one) for one in result.as_numpy("result").ravel()] == [expected] * shape[0]


def test_async_clients_of_several_shapes_at_once(triton, oip, tensor, run_alone, together):
    async def ask():
        async with triton.aio.InferenceServerClient(oip.grpc) as client:
            assert await client.is_server_live()
            inputs = [noise(1, 3, 32 + 16 * (i % 2), 48) for i in range(8)]
            answers = await asyncio.gather(*(client.infer("style", [tensor("x", x)]) for x in inputs))
            return zip(inputs, answers, strict=True)

    for x, answer in together(ask()):
        np.testing.assert_allclose(answer.as_numpy("y"), run_alone("style", x)["y"], rtol=1e-4, atol=1e-5)


def test_a_stream_is_answered_in_order_and_continues_after_an_error(triton, oip, tensor, run_alone):
    found: queue.Queue = queue.Queue()
    inputs = {str(n): np.full((1, 2 + n % 3 * 200, 8 + (n == 5)), n / 16, np.float32) for n in range(16)}
    with triton.InferenceServerClient(oip.grpc) as client:
        client.start_stream(lambda result, error: found.put((result, error)))
        for name, x in inputs.items():
            client.async_stream_infer("gru", [tensor("x", x)], request_id=name, enable_empty_final_response=True)
        answers = [found.get(timeout=30) for _ in inputs]
        client.stop_stream()
    for (name, x), (result, error) in zip(inputs.items(), answers, strict=True):
        if name == "5":
            assert "expected [-1, -1, 8]" in error.message()
            continue
        assert error is None
        response = result.get_response()
        assert response.id == name
        assert response.parameters["triton_final_response"].bool_param
        np.testing.assert_allclose(result.as_numpy("logits"), run_alone("gru", x)["logits"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("model", "name", "array", "parameters", "code", "message"),
    [
        ("nothing", "x", noise(1, 2, 8), {}, "NOT_FOUND", "There is no model `nothing`"),
        ("gru", "y", noise(1, 2, 8), {}, "INVALID_ARGUMENT", "There is no input `y`; expected `x`"),
        ("gru", "x", noise(1, 2, 9), {}, "INVALID_ARGUMENT", "has the shape [1, 2, 9]; expected [-1, -1, 8]"),
        ("gru", "x", noise(0, 2, 8), {}, "INVALID_ARGUMENT", "rows"),
        ("gru", "x", np.zeros((1, 2, 8), np.uint8), {}, "INVALID_ARGUMENT", "`x` is UINT8; expected FP32"),
        ("gru", "x", noise(1, 2, 8), {"top_k": 2}, "INVALID_ARGUMENT", "There is no parameter `top_k`"),
        ("mobilenet_v2", "image", np.array([b"not an image"], object), {}, "INVALID_ARGUMENT", "image"),
        ("mobilenet_v2", "image", np.array([b"x"], object), {"top_k": 0}, "INVALID_ARGUMENT", "`top_k=0`: expected"),
    ],
)
def test_errors_say_what_was_wrong(client, tensor, model, name, array, parameters, code, message):
    with pytest.raises(InferenceServerException) as error:
        client.infer(model, [tensor(name, array)], parameters=parameters)
    assert error.value.status() == f"StatusCode.{code}"
    assert message in error.value.message()


def test_timeout_and_priority_are_applied(client, tensor):
    with pytest.raises(InferenceServerException) as error:
        client.infer("gru", [tensor("x", noise(1, 2, 8))], timeout=1)
    assert error.value.status() in {"StatusCode.DEADLINE_EXCEEDED", "StatusCode.RESOURCE_EXHAUSTED"}
    for priority in (0, 1, 2, 7):
        client.infer("gru", [tensor("x", noise(1, 2, 8))], timeout=10_000_000, priority=priority)


def test_statistics_increase_with_requests(client, tensor):
    before = client.get_inference_statistics("style", "1").model_stats[0]
    client.infer("style", [tensor("x", noise(3, 3, 32, 32))])
    after = client.get_inference_statistics("style").model_stats[0]
    assert after.inference_count == before.inference_count + 3
    assert after.execution_count == before.execution_count + 1
    for part in ("success", "queue", "compute_infer"):
        then, now = getattr(before.inference_stats, part), getattr(after.inference_stats, part)
        assert now.count == then.count + 1
        assert now.ns > then.ns


def test_models_are_listed_loaded_and_unloaded(client, tensor):
    listed = {one.name: one.state for one in client.get_model_repository_index().models}
    assert listed == dict.fromkeys(("gru", "style", "mobilenet_v2", "yolov4_tiny", "pets"), "READY")
    with pytest.raises(InferenceServerException) as error:
        client.unload_model("style")
    assert error.value.status() == "StatusCode.UNAUTHENTICATED"
    client.unload_model("style", headers=METADATA)
    try:
        assert not client.is_model_ready("style")
        with pytest.raises(InferenceServerException, match="it was unloaded"):
            client.infer("style", [tensor("x", noise(1, 3, 32, 32))])
    finally:
        client.load_model("style", headers=METADATA)
    assert client.is_model_ready("style")
    with pytest.raises(InferenceServerException, match="loaded from its folder"):
        client.load_model("style", headers=METADATA, config="{}")
