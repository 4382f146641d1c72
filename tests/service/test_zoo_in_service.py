"""A server whose models do not all fit its budget, as clients see it."""

import re
import shutil

import httpx
import msgspec
import numpy as np
import pytest
from tritonclient import http as triton

from tests.conftest import serving
from zoo import catalog
from zoo.served_card import read_served_card, write_served_card

KEY = {"Authorization": "Bearer s3cret"}


@pytest.fixture(scope="module")
def zoo(models, tmp_path_factory):
    """A server with mobilenet_v2, pinned, four copies of it, and room for two of them."""
    folder = tmp_path_factory.mktemp("zoo")
    for name in ("first", "second", "third", "fourth", "mobilenet_v2"):
        copy = shutil.copytree(models / "mobilenet_v2" / "1", folder / "models" / name / "1")
        card = read_served_card(copy / "card.json")
        card = msgspec.structs.replace(card, name=name, task_default=name == "mobilenet_v2")
        write_served_card(card, copy / "card.json")
    settings = {
        "ZOOSERVE_MODELS": str(folder / "models"),
        "ZOOSERVE_MEMORY_MB": "600",
        "ZOOSERVE_RUN_THREADS": "1",  # so that what a model takes does not depend on what is measured to pay
        "ZOOSERVE_MAX_BATCH": "1",
        "ZOOSERVE_ADMIN_KEYS": "s3cret",
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    with serving(folder / "log", **settings) as server:
        server.wait(200, 120)
        with httpx.Client(base_url=server.url, timeout=60) as client:
            yield client


def states(zoo) -> dict[str, str]:
    return {model["name"]: model["state"] for model in zoo.get("/v1/models").json()["models"]}


def classify(zoo, name: str):
    response = zoo.post("/v1/classify", params={"model": name}, content=catalog.sample("coffee").read_bytes())
    assert response.status_code == 200, response.text
    timing = dict(re.findall(r"(\w+);dur=([\d.]+)", response.headers["server-timing"]))
    assert float(timing["read"]) < 50, "to wait for a model is no part of it"
    return response.json()["predictions"]


def test_a_request_loads_its_model_and_gets_the_same_answer(zoo):
    assert zoo.get("/readyz").status_code == 200
    assert states(zoo) == dict.fromkeys(("first", "second", "third", "fourth"), "on_demand") | {"mobilenet_v2": "ready"}
    assert classify(zoo, "first") == classify(zoo, "mobilenet_v2")
    listed = {model["name"]: model for model in zoo.get("/v1/models").json()["models"]}
    assert listed["first"]["state"] == "ready"
    assert 14e6 < listed["first"]["bytes"] < 200e6, "more than its file"
    assert listed["first"]["idle_s"] < 60
    assert listed["mobilenet_v2"]["pinned"]


def test_the_open_inference_protocol_loads_models_too(zoo):
    assert zoo.get("/v2/models/second/ready").status_code == 200
    assert zoo.get("/v2/models/second").json()["inputs"][0]["name"] == "images"
    assert states(zoo)["second"] == "on_demand", "it was not asked to answer"
    client = triton.InferenceServerClient(str(zoo.base_url.netloc, "ascii"))
    tensor = triton.InferInput("images", [1, 224, 224, 3], "UINT8")
    tensor.set_data_from_numpy(np.zeros((1, 224, 224, 3), np.uint8))
    assert client.infer("second", [tensor]).as_numpy("probabilities").shape == (1, 1000)
    assert states(zoo)["second"] == "ready"


def test_an_administrator_loads_and_unloads_within_the_same_budget(zoo):
    assert zoo.post("/v1/models/third/load", headers=KEY).json()["state"] == "ready"
    assert zoo.post("/v1/models/third/unload", headers=KEY).json()["state"] == "unloaded"
    refused = zoo.post("/v1/classify", params={"model": "third"}, content=catalog.sample("coffee").read_bytes())
    assert refused.status_code == 503
    assert "unloaded" in refused.json()["detail"]
    zoo.post("/v2/repository/models/third/load", headers=KEY).raise_for_status()
    assert states(zoo)["third"] == "ready"


def test_metrics_tell_of_loads(zoo):
    classify(zoo, "fourth")
    lines = dict(line.rsplit(" ", 1) for line in zoo.get("/metrics").text.splitlines() if not line.startswith("#"))
    assert float(lines['zooserve_model_load_seconds_count{model="fourth"}']) == 1
    assert float(lines['zooserve_model_resident_bytes{memory="host",model="fourth"}']) > 14e6
    assert float(lines['zooserve_model_waiting{model="fourth"}']) == 0
