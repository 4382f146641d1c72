"""NVIDIA's own client, sync and async, asks for everything that the service says it can."""

import asyncio
import io
import json

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from PIL import Image
from tritonclient.utils import InferenceServerException

from tests.service.conftest import KEY
from zoo.recipe import apply_exact
from zoo.store import Store


@pytest.fixture(scope="module")
def client(oip):
    client = triton.InferenceServerClient(oip.url.removeprefix("http://"), concurrency=8)
    yield client
    client.close()


def tensor(name: str, array: np.ndarray, *, binary: bool = True, module=triton):
    datatype = "BYTES" if array.dtype == object else {"uint8": "UINT8", "float32": "FP32"}[array.dtype.name]
    given = module.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array, binary_data=binary)
    return given


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).random(shape, np.float32)


def test_metadata_configuration_and_readiness(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("gru")
    assert client.is_model_ready("gru", "1")
    assert not client.is_model_ready("gru", "2")
    assert not client.is_model_ready("nothing")
    metadata = client.get_server_metadata()
    assert metadata["name"] == "zooserve"
    assert "binary_tensor_data" in metadata["extensions"]
    assert client.get_model_metadata("gru", "1") == {
        "name": "gru",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, -1, 8]}],
        "outputs": [
            {"name": "logits", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "states", "datatype": "FP32", "shape": [-1, -1, 16]},
        ],
        "parameters": {"task": "tensors", "title": "gru.onnx, tensors", "licence": "LicenseRef-own"},
    }
    metadata = client.get_model_metadata("mobilenet_v2")
    assert {"name": "images", "datatype": "UINT8", "shape": [-1, 224, 224, 3]} in metadata["inputs"]
    config = client.get_model_config("mobilenet_v2")
    assert config["max_batch_size"] == 32
    assert {"name": "images", "data_type": "TYPE_UINT8", "dims": [224, 224, 3], "optional": True} in config["input"]


@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize(("model", "shape"), [("gru", (1, 3, 8)), ("gru", (3, 11, 8)), ("style", (2, 3, 40, 56))])
def test_tensors_are_answered_with_tensors(client, run_alone, model, shape, binary_in, binary_out):
    x = noise(*shape)
    expected = run_alone(model, x)
    outputs = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in expected]
    result = client.infer(model, [tensor("x", x, binary=binary_in)], outputs=outputs, request_id="seven")
    assert result.get_response()["id"] == "seven"
    for name, want in expected.items():
        np.testing.assert_allclose(result.as_numpy(name), want, rtol=1e-4, atol=1e-5)


def test_only_requested_outputs_are_returned(client):
    result = client.infer("gru", [tensor("x", noise(1, 2, 8))], outputs=[triton.InferRequestedOutput("logits")])
    assert [output["name"] for output in result.get_response()["outputs"]] == ["logits"]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests_get_compressed_answers(client, run_alone, algorithm):
    x = noise(1, 3, 64, 64)
    result = client.infer(
        "style",
        [tensor("x", x)],
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    np.testing.assert_allclose(result.as_numpy("y"), run_alone("style", x)["y"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [[1], [2], [2, 1]])
def test_encoded_images_get_the_task_s_results(client, oip, coffee, shape):
    images = np.empty(shape, object)
    images[:] = coffee
    result = client.infer("mobilenet_v2", [tensor("image", images)], parameters={"top_k": 2})
    expected = oip.client.post("/v1/classify?model=mobilenet_v2&top_k=2", content=coffee).json()
    assert [json.loads(one) for one in result.as_numpy("result")] == [expected] * shape[0]


def test_an_image_gets_its_result_and_the_graphs_tensors(client, oip, coffee):
    outputs = [triton.InferRequestedOutput(name) for name in ("result", "scores", "boxes", "classes")]
    given = np.array([coffee], object)
    parameters = {"score_threshold": 0.5}
    result = client.infer("yolov4_tiny", [tensor("image", given)], outputs=outputs, parameters=parameters)
    expected = oip.client.post("/v1/detect?score_threshold=0.5", content=coffee).json()
    assert json.loads(result.as_numpy("result")[0]) == expected
    assert result.as_numpy("scores")[0, 0] == pytest.approx(expected["predictions"][0]["score"], abs=1e-5)
    assert result.as_numpy("boxes").shape == (*result.as_numpy("classes").shape, 4)


def test_images_as_pixels_get_the_graphs_tensors_or_results(client, models, coffee):
    recipe = Store(models).latest("mobilenet_v2").card.recipe
    pixels = np.stack([apply_exact(recipe, Image.open(io.BytesIO(coffee)).convert("RGB"))] * 3)
    result = client.infer("mobilenet_v2", [tensor("images", pixels)])
    assert [output["name"] for output in result.get_response()["outputs"]] == [
        "probabilities",
        "activation",
        "embedding",
    ]
    assert (result.as_numpy("probabilities").argmax(1) == 967).all()
    result = client.infer("mobilenet_v2", [tensor("images", pixels)], outputs=[triton.InferRequestedOutput("result")])
    first = json.loads(result.as_numpy("result")[0])
    assert first["image"] == {"width": 224, "height": 224}
    assert first["predictions"][0]["label"] == "espresso"


@pytest.mark.parametrize(("model", "shape"), [("gru", (4000, 8)), ("style", (3, 192, 192))])
def test_requests_of_one_shape_share_a_run(client, oip, batches, run_alone, model, shape):
    inputs = [np.full((1 + i % 2, *shape), i / 24, np.float32) for i in range(24)]
    before = batches(model)
    asked = [client.async_infer(model, [tensor("x", x)]) for x in inputs]
    results = [one.get_result() for one in asked]
    runs, rows = (after - then for after, then in zip(batches(model), before, strict=True))
    assert rows == sum(len(x) for x in inputs)
    assert runs < len(inputs), "some of them must have been in one run"
    assert f'zooserve_batch_size_count{{model="{model}"}}' in oip.client.get("/metrics").text
    for x, result in zip(inputs, results, strict=True):
        for name, want in run_alone(model, x).items():
            np.testing.assert_allclose(result.as_numpy(name), want, rtol=1e-3, atol=1e-4)


def test_async_clients_of_several_shapes_at_once(oip, run_alone, together):
    async def ask():
        async with triton_aio.InferenceServerClient(oip.url.removeprefix("http://")) as client:
            assert await client.is_server_live()
            inputs = [noise(1, 3, 32 + 16 * (i % 2), 48) for i in range(8)]
            answers = await asyncio.gather(
                *(client.infer("style", [tensor("x", x, binary=bool(i % 2))]) for i, x in enumerate(inputs))
            )
            return zip(inputs, answers, strict=True)

    for x, answer in together(ask()):
        np.testing.assert_allclose(answer.as_numpy("y"), run_alone("style", x)["y"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "name", "array", "parameters", "status", "message"),
    [
        ("nothing", "x", noise(1, 2, 8), {}, "404", "There is no model `nothing`"),
        ("gru", "y", noise(1, 2, 8), {}, "400", "There is no input `y`; expected `x`"),
        ("gru", "x", noise(1, 2, 9), {}, "400", "has the shape [1, 2, 9]; expected [-1, -1, 8]"),
        ("gru", "x", noise(2, 8), {}, "400", "has the shape [2, 8]"),
        ("gru", "x", noise(0, 2, 8), {}, "400", "rows"),
        ("gru", "x", np.zeros((1, 2, 8), np.uint8), {}, "400", "`x` is UINT8; expected FP32"),
        ("gru", "x", noise(1, 2, 8), {"top_k": 2}, "400", "There is no parameter `top_k`"),
        ("mobilenet_v2", "image", np.array([b"not an image"], object), {}, "400", "image"),
        ("mobilenet_v2", "image", np.array([b"not an image"] * 33, object), {}, "400", "33 images"),
        ("mobilenet_v2", "images", np.zeros((1, 3, 3, 3), np.uint8), {}, "400", "expected [-1, 224, 224, 3]"),
        ("mobilenet_v2", "image", np.array([b"x"], object), {"top_k": 0}, "400", "`top_k=0`: expected a whole number"),
    ],
)
def test_errors_say_what_was_wrong(client, model, name, array, parameters, status, message):
    with pytest.raises(InferenceServerException) as error:
        client.infer(model, [tensor(name, array)], parameters=parameters)
    assert error.value.status() == status
    assert message in error.value.message()


def test_the_parameter_timeout_is_in_microseconds(client):
    with pytest.raises(InferenceServerException) as error:
        client.infer("gru", [tensor("x", noise(1, 2, 8))], timeout=1)
    assert error.value.status() in {"504", "429"}
    for priority in (0, 1, 2, 7):
        client.infer("gru", [tensor("x", noise(1, 2, 8))], timeout=10_000_000, priority=priority)


def test_statistics_increase_with_requests(client):
    before = client.get_inference_statistics("style", "1")["model_stats"][0]
    client.infer("style", [tensor("x", noise(3, 3, 32, 32))])
    after = client.get_inference_statistics("style")["model_stats"][0]
    assert after["inference_count"] == before["inference_count"] + 3
    assert after["execution_count"] == before["execution_count"] + 1
    for part in ("success", "queue", "compute_infer"):
        then, now = before["inference_stats"][part], after["inference_stats"][part]
        assert now["count"] == then["count"] + 1
        assert now["ns"] > then["ns"]
    names = {one["name"] for one in client.get_inference_statistics()["model_stats"]}
    assert names == {"gru", "style", "mobilenet_v2", "yolov4_tiny"}


def test_models_are_listed_loaded_and_unloaded(client):
    assert {"name": "style", "version": "1", "state": "READY", "reason": ""} in client.get_model_repository_index()
    with pytest.raises(InferenceServerException) as error:
        client.unload_model("style")
    assert error.value.status() == "401"
    client.unload_model("style", headers=KEY)
    try:
        assert not client.is_model_ready("style")
        states = {one["name"]: one["state"] for one in client.get_model_repository_index()}
        assert states["style"] == "UNAVAILABLE"
        with pytest.raises(InferenceServerException, match="it was unloaded"):
            client.infer("style", [tensor("x", noise(1, 3, 32, 32))])
    finally:
        client.load_model("style", headers=KEY)
    assert client.is_model_ready("style")
    with pytest.raises(InferenceServerException, match="loaded from its folder"):
        client.load_model("style", headers=KEY, config="{}")
