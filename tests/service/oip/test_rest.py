"""The protocol over HTTP as it is written: what clients do not send by themselves, and what nobody should."""

import asyncio
import base64
import gzip
import io
import json
import struct
import zlib

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.conftest import serving
from zoo.recipe import apply_exact
from zoo.store import Store

X = np.arange(16, dtype=np.float32).reshape(1, 2, 8)


def request(**changes) -> dict:
    given = {"name": "x", "shape": [1, 2, 8], "datatype": "FP32", "data": X.ravel().tolist()}
    return {"inputs": [{name: value for name, value in (given | changes).items() if value is not None}]}


def infer(server, body, model="gru", **headers) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return server.client.post(f"/v2/models/{model}/infer", content=content, headers=headers)


def test_json_is_answered_with_json(oip, run_alone):
    response = infer(oip, request() | {"id": "seven"})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert "infer;dur=" in response.headers["server-timing"]
    answer = response.json()
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("seven", "gru", "1")
    logits = next(output for output in answer["outputs"] if output["name"] == "logits")
    assert (logits["datatype"], logits["shape"]) == ("FP32", [1, 3])
    np.testing.assert_allclose(logits["data"], run_alone("gru", X)["logits"].ravel(), rtol=1e-4)
    assert infer(oip, request(data=X.tolist()), model="gru/versions/1").json()["outputs"] == answer["outputs"]
    after_mark = infer(
        oip, b"\xef\xbb\xbf" + json.dumps(request() | {"parameters": {"binary_data_output": None}}).encode()
    )
    assert after_mark.json()["outputs"] == answer["outputs"], "a byte order mark is skipped, and null is not there"


@pytest.mark.parametrize(
    ("body", "headers", "status", "message"),
    [
        (b"{", {}, 400, "not JSON of a request"),
        (b"[" * 100_000, {}, 400, "not JSON of a request"),
        (b"{}", {}, 400, "inputs"),
        ({"inputs": []}, {}, 400, "The input `x` is missing"),
        ({"inputs": request()["inputs"] * 2}, {}, 400, "occurs twice"),
        (request(data=None), {}, 400, "neither `data` nor"),
        (request(parameters={"binary_data_size": 8}), {}, 400, "has both"),
        (request(data=None, parameters={"binary_data_size": 64}), {}, 400, "but 0 bytes are left"),
        (request(data=None, parameters={"binary_data_size": True}), {}, 400, "`binary_data_size` is True"),
        (request(parameters={"shared_memory_region": "a"}), {}, 400, "shared memory is not served"),
        (request() | {"parameters": {"binary_data_output": "true"}}, {}, 400, "expected true or false"),
        (request() | {"parameters": {"binary_data_output": 0}}, {}, 400, "`binary_data_output=0`: expected true or"),
        (
            request() | {"outputs": [{"name": "logits", "parameters": {"binary_data": 1}}]},
            {},
            400,
            "`binary_data=1`: expected true or false",
        ),
        (request(shape=[1, 3, 8]), {}, 400, "has 24 elements, but 16 came"),
        (request(shape=[1, 2, 9]), {}, 400, "the shape [1, 2, 9]; expected [-1, -1, 8]"),
        (request(shape=[1, 0, 8], data=[]), {}, 400, "the shape [1, 0, 8], which has no elements"),
        (request(shape=[70_000, 1, 8]), {}, 413, "The inputs have 70000 rows; the limit is 65536"),
        (request(shape="a"), {}, 400, "Expected `array`"),
        (request(shape=[1] * 600), {}, 400, "its shape has more than 1024 characters"),
        (request(data=[1e300] * 16), {}, 400, "the largest number of FP32 is 3.4"),
        (request(data={}), {}, 400, "its elements are not FP32"),
        (request(parameters={"a": [1]}), {}, 400, "not JSON of a request"),
        (request() | {"outputs": [{"name": ""}] * 9000}, {}, 400, "more than 16384 quotation marks"),
        (request() | {"outputs": [{"name": "nothing"}]}, {}, 400, "no output `nothing`; expected `logits`, `states`"),
        (request() | {"parameters": {"timeout": "soon"}}, {}, 400, "a number of microseconds"),
        (request() | {"parameters": {"priority": -1}}, {}, 400, "`priority=-1`"),
        (request() | {"parameters": {"sequence_id": 7}}, {}, 400, "sequences are not served"),
        (request(), {"Inference-Header-Content-Length": "9999"}, 400, "the length of the JSON"),
        (request(), {"Inference-Header-Content-Length": "-1"}, 400, "the length of the JSON"),
        (json.dumps(request()).encode() + b"rest", {}, 400, "not JSON"),
        (request(), {"X-Request-Timeout-Ms": "soon"}, 400, "X-Request-Timeout-Ms"),
        (request(), {"Content-Encoding": "br"}, 400, "expected gzip or deflate"),
        (request(), {"Content-Encoding": "gzip"}, 400, "is not gzip"),
        (
            gzip.compress(json.dumps(request()).encode(), mtime=0)[:-9],
            {"Content-Encoding": "gzip"},
            400,
            "ends too early",
        ),
        (
            gzip.compress(json.dumps(request()).encode(), mtime=0) + b"x",
            {"Content-Encoding": "gzip"},
            400,
            "data after its end",
        ),
        (gzip.compress(bytes(40_000_000), mtime=0), {"Content-Encoding": "gzip"}, 413, "more than 32000000 bytes"),
        (zlib.compress(bytes(40_000_000)), {"Content-Encoding": "deflate"}, 413, "more than 32000000 bytes"),
        (bytes(33_000_000), {}, 413, "the limit is 32000000"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_invalid_requests_are_refused(oip, body, headers, status, message):
    response = infer(oip, body, **headers)
    assert (response.status_code, response.headers["content-type"]) == (status, "application/json")
    assert list(response.json()) == ["error"]
    assert message in response.json()["error"]


def test_an_id_may_contain_many_escaped_quotation_marks(oip):
    """They are bounded, escaped ones are not."""
    response = infer(oip, request() | {"id": 'a"' * 20_000})
    assert response.status_code == 200
    assert response.json()["id"] == 'a"' * 20_000


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/models/gru/infer", 404),
        ("POST", "/v2/health/live", 405),
        ("GET", "/v2/models/gru/versions/9", 404),
        ("POST", "/v2/models/nothing/infer", 404),
        ("GET", "/v2/models/nothing/stats", 404),
    ],
)
def test_unknown_paths_models_and_methods_get_an_error(oip, method, path, status):
    response = oip.client.request(method, path)
    assert response.status_code == status
    assert list(response.json()) == ["error"]


def test_raw_bytes_after_the_json_are_read(oip, run_alone):
    header = json.dumps(
        request(data=None, parameters={"binary_data_size": 64})
        | {"outputs": [{"name": "logits", "parameters": {"binary_data": True}}, {"name": "states"}]}
    ).encode()
    body = header + X.tobytes()
    response = infer(oip, body, **{"Inference-Header-Content-Length": str(len(header))})
    length = int(response.headers["inference-header-content-length"])
    logits, states = json.loads(response.content[:length])["outputs"]
    assert logits["parameters"] == {"binary_data_size": 12}
    expected = run_alone("gru", X)
    np.testing.assert_allclose(np.frombuffer(response.content[length:], "<f4"), expected["logits"][0], rtol=1e-4)
    np.testing.assert_allclose(states["data"], expected["states"].ravel(), rtol=1e-4, atol=1e-5)


def test_an_image_in_base64_is_answered(oip, coffee):
    given = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(coffee).decode()]}
    body = {"inputs": [given | {"parameters": {"content_type": "base64"}}], "parameters": {"top_k": 1}}
    (output,) = infer(oip, body, "mobilenet_v2").json()["outputs"]
    assert output["name"] == "result"
    assert json.loads(output["data"][0])["predictions"][0]["label"] == "espresso"


@pytest.mark.parametrize(
    ("accepted", "encoding"), [("gzip", "gzip"), ("br, deflate;q=0.5", "deflate"), ("gzip;q=0", None)]
)
def test_an_answer_is_compressed_by_accept_encoding(oip, accepted, encoding):
    long = request(shape=[1, 200, 8], data=[0.5] * 1600)
    response = infer(oip, long, **{"Accept-Encoding": accepted})
    assert response.headers.get("content-encoding") == encoding
    assert response.json()["model_name"] == "gru"


def test_v1_refuses_models_for_tensors_with_their_path(oip):
    response = oip.client.post("/v1/classify?model=gru", content=b"")
    assert "POST /v2/models/gru/infer" in response.json()["detail"]
    assert oip.client.get("/v1/models/gru").json()["card"]["task"] == "tensors"


def test_requests_of_all_protocols_share_runs(oip, batches, coffee, models, together):
    recipe = Store(models).latest("mobilenet_v2").card.recipe
    pixels = apply_exact(recipe, Image.open(io.BytesIO(coffee)).convert("RGB"))
    raw = {"name": "images", "shape": [1, 224, 224, 3], "datatype": "UINT8"}
    raw["parameters"] = {"binary_data_size": pixels.nbytes}
    header = json.dumps({"inputs": [raw], "outputs": [{"name": "result"}]}).encode()
    length = {"Inference-Header-Content-Length": str(len(header))}
    packed = struct.pack("<I", len(coffee)) + coffee
    image = {"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(packed)}}
    encoded = json.dumps({"inputs": [image]}).encode()
    requests = [
        ("/v1/classify?model=mobilenet_v2", coffee, {}),
        ("/v2/models/mobilenet_v2/infer", header + pixels.tobytes(), length),
        ("/v2/models/mobilenet_v2/infer", encoded + packed, {"Inference-Header-Content-Length": str(len(encoded))}),
    ]

    async def ask():
        async with httpx.AsyncClient(base_url=oip.url, timeout=60, trust_env=False) as client:
            asked = (client.post(path, content=body, headers=headers) for path, body, headers in requests * 16)
            return await asyncio.gather(*asked)

    before = batches("mobilenet_v2")
    for number, response in enumerate(together(ask())):
        assert response.status_code == 200, response.text
        answer = response.json() if number % 3 == 0 else json.loads(response.json()["outputs"][0]["data"][0])
        assert answer["predictions"][0]["label"] == "espresso"
    runs, images = (after - then for after, then in zip(batches("mobilenet_v2"), before, strict=True))
    assert images == 48
    assert runs < 48, "some of them must have been in one run"


def test_all_paths_except_health_need_a_key(models, tmp_path):
    settings = {"ZOOSERVE_LOAD": "lenet5", "ZOOSERVE_API_KEYS": "user"}
    with serving(tmp_path / "log", ZOOSERVE_MODELS=str(models), **settings) as server:
        server.wait(200)
        paths = ["/v2", "/v2/models/lenet5", "/v2/models/lenet5/ready", "/v2/models/lenet5/config", "/v2/models/stats"]
        for path in paths:
            assert server.client.get(path).status_code == 401
            assert server.client.get(path, headers={"X-API-Key": "user"}).status_code == 200
        for path in ("/v2/models/lenet5/infer", "/v2/repository/index"):
            refused = server.client.post(path, content=b"{}")
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
            assert "A key is needed" in refused.json()["error"]
        for path in ("/v2/health/live", "/v2/health/ready"):
            assert server.client.get(path).status_code == 200
        forbidden = server.client.post("/v2/repository/models/lenet5/unload", headers={"X-API-Key": "user"})
        assert forbidden.status_code == 403


def test_decompressed_bodies_share_the_memory_of_bodies(models, tmp_path):
    """Each has a hundredth of its size compressed, and that is all that the connections count."""
    bomb = gzip.compress(b" " * 31_000_000, 9)
    settings = {"ZOOSERVE_MODELS": str(models), "ZOOSERVE_LOAD": "lenet5", "ZOOSERVE_MAX_BODIES_MB": "100"}

    async def ask(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post("/v2/models/lenet5/infer", content=bomb, headers={"Content-Encoding": "gzip"})

    async def attack(url: str) -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
            return await asyncio.gather(*[ask(client) for _ in range(40)])

    with serving(tmp_path / "log", **settings) as server:
        server.wait(200)
        before = server.resident()
        answers = asyncio.run(attack(server.url))
        after = server.resident()
        assert {answer.status_code for answer in answers} == {400, 429}
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert "Decompressed, the bodies of all current requests are of" in refused.json()["error"]
        assert refused.headers["retry-after"] == "1"
        assert infer(server, bomb, "lenet5", **{"Content-Encoding": "gzip"}).status_code == 400, (
            "nothing is held any more"
        )
    assert after - before < 400e6
