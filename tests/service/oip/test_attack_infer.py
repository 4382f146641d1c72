"""Bodies of `/v2` that cost much more than they weigh: refused before they do, while others are answered."""

import gzip
import json

import msgspec
import numpy as np
import pytest

from tests.attack import attacked
from tests.conftest import serving

WHOLE = 32_000_000  # bytes, the limit of a body
IMAGE = {"name": "image", "shape": [1], "datatype": "BYTES"}
X = {"name": "x", "shape": [1, 2, 8], "datatype": "FP32"}


def body(**tensor) -> bytes:
    return msgspec.json.encode({"inputs": [tensor]})


def filled(
    tensor: dict, unit: bytes, start: bytes = b"[", end: bytes = b"]", size: int = WHOLE, last: int = -1
) -> bytes:
    """A request whose data repeat a unit until the body has `size` bytes."""
    head = msgspec.json.encode({"inputs": [tensor]})[:-3] + b',"data":' + start
    tail = end + b"}]}"
    count = (WHOLE - len(head) - len(tail)) // max(len(unit), 1)
    return head + (unit * count)[:last] + tail


def with_parameters(unit: bytes) -> bytes:
    count = (WHOLE - 100) // (len(unit) + 8)
    items = b",".join(b'"%07d":%b' % (number, unit) for number in range(count))
    return b'{"inputs":[],"parameters":{%b}}' % items[: WHOLE - 100].rpartition(b",")[0]


def binary(tensor: dict, data: bytes) -> tuple[bytes, dict]:
    head = body(**tensor, parameters={"binary_data_size": len(data)})
    return head + data, {"Inference-Header-Content-Length": str(len(head))}


def listed(unit: bytes, count: int, before: bytes, after: bytes) -> bytes:
    return before + unit * count + unit[:-1] + after


MIXED = ["a" * 30_000] + [""] * 9000
INPUTS = b",".join(b'{"name":"%d","shape":[],"datatype":""}' % number for number in range(700_000))
ATTACKS = {  # name -> model, body, status
    "one long text among empty ones": ("gru", lambda: body(**X | {"shape": [1, 9001, 8], "data": MIXED}), 400),
    "the same for whole numbers": ("gru", lambda: body(**X | {"datatype": "INT32", "data": MIXED}), 400),
    "rows without elements": ("gru", lambda: body(**X | {"shape": [300_000_000, 0, 8], "data": []}), 400),
    "rows of nothing": ("rows", lambda: body(**X | {"shape": [300_000_000, 0], "data": []}), 400),
    "more rows than may be": ("rows", lambda: filled(X | {"shape": [8_000_000, 1]}, b"1,"), 413),
    "objects": ("gru", lambda: filled(X, b"{},"), 400),
    "objects for an image": ("mobilenet_v2", lambda: filled(IMAGE, b"{},"), 400),
    "lists": ("gru", lambda: filled(X, b"[],"), 400),
    "lists for an image": ("mobilenet_v2", lambda: filled(IMAGE, b"[],"), 400),
    "lists of lists for an image": ("mobilenet_v2", lambda: filled(IMAGE | {"shape": [1, 1]}, b"[],"), 400),
    "numbers for an image": ("mobilenet_v2", lambda: filled(IMAGE, b"1,"), 400),
    "empty texts for an image": ("mobilenet_v2", lambda: filled(IMAGE, b'"",'), 400),
    "escaped texts for an image": ("mobilenet_v2", lambda: filled(IMAGE, b'"\\\\",'), 400),
    "null": ("gru", lambda: filled(X, b"null,"), 400),
    "deep lists": ("gru", lambda: filled(X, b"[", b"", b"", last=WHOLE), 400),
    "deep lists that end": ("gru", lambda: filled(X, b"", b"[" * 10_000_000, b"]" * 10_000_000), 400),
    "too many numbers": ("gru", lambda: filled(X, b"1,"), 400),
    "numbers in lists of one": ("gru", lambda: filled(X | {"shape": [1, 999_999, 8]}, b"[1],"), 400),
    "one number of many digits": ("gru", lambda: filled(X, b"1", last=WHOLE), 400),
    "white space": ("gru", lambda: filled(X, b" ", b"[1", b"]", last=WHOLE), 400),
    "a shape of millions": (
        "gru",
        lambda: listed(b"1,", 15_000_000, b'{"inputs":[{"name":"x","datatype":"FP32","data":[],"shape":[', b"]}]}"),
        400,
    ),
    "inputs": ("gru", lambda: b'{"inputs":[%b]}' % INPUTS, 400),
    "outputs": ("gru", lambda: listed(b'{"name":""},', 2_600_000, b'{"inputs":[],"outputs":[', b"]}"), 400),
    "parameters": ("gru", lambda: with_parameters(b"1"), 400),
    "a parameter of lists": ("gru", lambda: listed(b"[],", 10**7, b'{"inputs":[],"parameters":{"a":[', b"]}}"), 400),
    "a long name": ("gru", lambda: body(**X | {"name": "x" * 30_000_000, "data": [1]}), 400),
    "a long id": ("gru", lambda: msgspec.json.encode({"inputs": [], "id": "x" * 30_000_000}), 400),
    "objects beside the request": ("gru", lambda: listed(b"{},", 10**7, b'{"inputs":[],"other":[', b"]}"), 400),
}


@pytest.fixture(scope="module")
def server(rows_store, tmp_path_factory):
    settings = {"ZOOSERVE_MODELS": str(rows_store), "ZOOSERVE_LOAD": "gru,mobilenet_v2,rows"}
    with serving(tmp_path_factory.mktemp("attacked") / "log", **settings) as server:
        server.wait(200)
        valid_request(server)
        yield server


def valid_request(server) -> None:
    """A request that is answered."""
    data = np.zeros((1, 2, 8)).tolist()
    response = server.client.post("/v2/models/gru/infer", json={"inputs": [X | {"data": data}]})
    assert response.status_code == 200, response.text


def attack(server, model: str, content: bytes, status: int, **headers: str) -> None:
    with attacked(server) as seen:
        response = server.client.post(f"/v2/models/{model}/infer", content=content, headers=headers)
        valid_request(server)
    assert response.status_code == status, response.text[:300]
    assert len(response.content) < 2000
    seen.check()


@pytest.mark.parametrize("name", ATTACKS)
def test_hostile_json_is_refused_in_little_memory(server, name):
    model, make, status = ATTACKS[name]
    content = make()
    assert len(content) <= WHOLE
    attack(server, model, content, status)


@pytest.mark.parametrize("form", ["bytes", "numbers", "texts for numbers"])
def test_hostile_binary_data_is_refused_in_little_memory(server, form):
    data = bytes(31_999_000)
    tensors = {
        "bytes": ("mobilenet_v2", IMAGE | {"shape": [len(data) // 4]}),
        "numbers": ("rows", X | {"shape": [len(data) // 4, 1]}),
        "texts for numbers": ("gru", X | {"datatype": "BYTES", "shape": [len(data) // 4]}),
    }
    model, tensor = tensors[form]
    content, headers = binary(tensor, data[: len(data) // 4 * 4])
    attack(server, model, content, 413 if form == "numbers" else 400, **headers)


@pytest.mark.parametrize("unit", [b"{},", b"1,", b" "])
def test_a_hostile_compressed_body_is_refused_in_little_memory(server, unit):
    """30 KB that become 32 MB."""
    content = gzip.compress(filled(X, unit, last=-1 if unit != b" " else WHOLE), 9)
    assert len(content) < 100_000
    attack(server, "gru", content, 400, **{"Content-Encoding": "gzip"})


def test_a_body_above_the_limit_after_decompression_is_refused(server):
    content = gzip.compress(bytes(2_000_000_000), 1)[:31_000_000]
    attack(server, "gru", content, 413, **{"Content-Encoding": "gzip"})


@pytest.mark.parametrize("path", ["/v2/repository/index", "/v2/repository/models/gru/load"])
def test_large_bodies_of_other_paths_are_refused(server, path):
    content = listed(b"[],", 10**7, b'{"parameters":{"a":[', b"]}}")
    with attacked(server) as seen:
        assert server.client.post(path, content=content).status_code in (403, 413)
        valid_request(server)
    seen.check()


def test_a_too_large_answer_is_refused_before_it_is_computed(server):
    """A row of 4 bytes becomes one of 4,000."""
    content = json.dumps({"inputs": [X | {"shape": [60_000, 1], "data": [0.5] * 60_000}]}).encode()
    attack(server, "rows", content, 413)


def test_a_large_valid_request_is_answered(server):
    """Numbers of 31 MB in JSON, flat and nested: others are answered meanwhile."""
    shape = [1, 300_000, 8]
    data = np.random.default_rng(1).random(shape).round(9)
    for form in (data.ravel(), data):
        content = msgspec.json.encode(
            {"inputs": [X | {"shape": shape, "data": form.tolist()}], "outputs": [{"name": "logits"}]}
        )
        assert 20_000_000 < len(content) < WHOLE
        with attacked(server) as seen:
            response = server.client.post("/v2/models/gru/infer", content=content)
        assert response.status_code == 200, response.text[:300]
        seen.check()
