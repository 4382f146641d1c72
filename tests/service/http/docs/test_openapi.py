"""The description of version 1: its examples are true, its schemas are those of real answers, schemathesis agrees."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import msgspec
import pytest
from pycocotools import mask as coco

from service.fronts.connection import engine_gone
from service.http.docs import routes as docs
from service.http.docs.examples import examples
from service.http.docs.openapi import document
from service.http.ops import models as model_routes
from service.http.ops import pipelines as pipeline_routes
from service.http.ops import probes
from service.request import STATUS
from service.tasks import TASKS
from tests.conftest import ROOT, serving
from tests.service.http.docs.record_examples import ask

DOCUMENT = msgspec.json.decode(document())
GIVEN = examples()
OPERATIONS = [(path, method) for path, item in DOCUMENT["paths"].items() for method in item]


def check(schema: dict, value: object) -> None:
    """Validate against a schema of the document."""
    jsonschema.Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(value)


def schema_of(path: str, method: str, status: int, kind: str) -> dict:
    return DOCUMENT["paths"][path][method]["responses"][str(status)]["content"][kind]["schema"]


def same(one, other) -> bool:
    """Equal; scores and boxes may differ as much as they do between processors, masks by some pixels."""
    if isinstance(one, dict) and one.keys() == other.keys() == {"size", "counts"}:
        mine, theirs = ({"size": x["size"], "counts": x["counts"].encode()} for x in (one, other))
        return coco.iou([mine], [theirs], [0])[0, 0] > 0.98
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == pytest.approx(other, rel=0.02, abs=0.005) if isinstance(one, float) else one == other


@pytest.mark.parametrize("example", GIVEN.examples, ids=lambda example: f"{example.path} {example.name}")
def test_every_recorded_example_equals_the_servers_answer(server, example):
    response = ask(server.client, example, GIVEN.image)
    assert response.status_code == example.status
    assert same(response.json(), example.answer), response.text
    kind = response.headers["content-type"]
    check(schema_of(example.path, example.method, example.status, kind), response.json())


def test_every_example_is_shown():
    shown = [
        (path, name)
        for path, item in DOCUMENT["paths"].items()
        for operation in item.values()
        for response in operation["responses"].values()
        for content in response.get("content", {}).values()
        for name in content.get("examples", {})
    ]
    assert sorted(shown) == sorted((example.path, example.name) for example in GIVEN.examples)
    classify = DOCUMENT["paths"]["/v1/classify"]["post"]
    sent = classify["requestBody"]["content"]["application/json"]["examples"]["cat"]["value"]
    assert sent == {"images": [GIVEN.image]}


@pytest.mark.parametrize("name", ["/v1/models/mobilenet_v2", "/v1/models/yolov4_tiny", "/v1/models/u2netp"])
def test_details_of_models_match_their_schema(server, name):
    check(schema_of("/v1/models/{name}", "get", 200, "application/json"), server.client.get(name).json())


@pytest.mark.parametrize("kind", ["image/png", "image/jpeg"])
def test_an_annotated_image_is_described_too(server, photo, kind):
    response = server.client.post("/v1/detect", content=photo("coffee"), headers={"accept": kind})
    assert response.headers["content-type"] == kind
    assert kind in DOCUMENT["paths"]["/v1/detect"]["post"]["responses"]["200"]["content"]


@pytest.mark.parametrize("name", sorted(DOCUMENT["components"]["schemas"]))
def test_schemas_are_valid_and_have_descriptions(name):
    schema = DOCUMENT["components"]["schemas"][name]
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["description"]
    for reference in re.findall(r'"#/components/schemas/(\w+)"', msgspec.json.encode(schema).decode()):
        assert reference in DOCUMENT["components"]["schemas"]


def test_options_have_ranges_and_descriptions():
    options = {each["name"]: each for each in DOCUMENT["paths"]["/v1/detect"]["post"]["parameters"]}
    threshold = options["score_threshold"]
    assert threshold["description"] == (
        "Objects with a lower score are left out. Default: that of the model's card, usually 0.25."
    )
    assert threshold["schema"] == {"type": "number", "minimum": 0, "maximum": 1}
    assert {"model", "version", "X-Request-Id", "X-Request-Timeout-Ms", "X-Request-Priority"} < options.keys()
    assert all(each["description"] for each in options.values())


def test_every_route_is_described(server):
    source = "".join(map(inspect.getsource, (model_routes, pipeline_routes, probes)))
    written = set(re.findall(r'Route\("(/(?:v1|livez|readyz|metrics)[^"]*)"', source))
    assert len(written) > 5
    assert written | {f"/v1/{task}" for task in TASKS} == DOCUMENT["paths"].keys()
    for path, method in OPERATIONS:
        response = server.client.request(method, path.format(name="mobilenet_v2"))
        assert response.status_code != 405, (method, path)


@pytest.mark.parametrize("path", ["/v1/models/reload", "/v1/models/{name}/load", "/v1/models/{name}/unload"])
def test_changes_may_find_no_engine(path):
    """While the engine behind the fronts is started again, or a model is not loaded in time."""
    refused = DOCUMENT["paths"][path]["post"]["responses"][str(STATUS[engine_gone().reason])]
    assert "not_ready" in refused["description"]
    assert "Retry-After" in refused["headers"]


def test_the_description_needs_no_key(tmp_path, models):
    with serving(tmp_path / "log", ZOOSERVE_MODELS=str(models), ZOOSERVE_LOAD="lenet5", ZOOSERVE_API_KEYS="one") as it:
        it.wait(200)
        for path in sorted(docs.OPEN):
            response = it.client.get(path)
            assert response.status_code == 200, path
            assert response.content
        assert it.client.get("/docs/../examples.json").status_code == 401
        refused = it.client.get("/v1/models")
        assert refused.status_code == 401
        check(schema_of("/v1/models", "get", 401, "application/problem+json"), refused.json())
        assert it.client.get("/v1/models", headers={"x-api-key": "one"}).status_code == 200


# 504 is right where the deadline that a request asks for is a microsecond.
CONFIGURATION = """
[checks]
positive_data_acceptance.enabled = false # no schema says which bytes are an image
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 504]
"""


def schemathesis(url: str, folder: Path, *options: str) -> str:
    (folder / "schemathesis.toml").write_text(CONFIGURATION)
    command = ["-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--phases=examples,coverage,fuzzing", "--seed=1"]
    hooks = {"SCHEMATHESIS_HOOKS": "tests.service.http.docs.schemathesis_hooks"}
    hooks |= {"NO_PROXY": "*", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *command, "--no-color", *options],
        check=False,
        cwd=folder,
        env=os.environ | hooks,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_schemathesis_finds_nothing(server, tmp_path):
    said = schemathesis(server.url, tmp_path, "--max-examples=20")
    assert re.search(rf"Tested: *{len(OPERATIONS)}\b", said), said


def test_schemathesis_as_an_administrator_finds_nothing(models, tmp_path):
    """Models are loaded and unloaded; whoever brings no key is refused."""
    keys = {"ZOOSERVE_API_KEYS": "one", "ZOOSERVE_ADMIN_KEYS": "admin-key"}
    with serving(tmp_path / "log", ZOOSERVE_MODELS=str(models), ZOOSERVE_LOAD="lenet5", **keys) as server:
        server.wait(200)
        key = ("--header", "Authorization: Bearer admin-key", "--include-path-regex", "^/v1/models")
        said = schemathesis(server.url, tmp_path, "--max-examples=10", *key)
        assert re.search(r"Tested: *5\b", said), said
