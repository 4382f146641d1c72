"""Pipelines over every protocol: one answer; models that are swapped, unloaded or loaded when they are asked for."""

import io
import json
import shutil
import time

import bentoml
import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from tritonclient import http as triton_http
from tritonclient.utils import InferenceServerException
from zooserve_client import Client, ZooserveError

from tests.conftest import ROOT, free_port, serving
from tests.service.test_lifecycle import publish
from zoo.cli import main
from zoo.served_card import read_served_card, write_served_card

KEY = {"X-API-Key": "admin-key"}
# What the reference pipelines answered when they were recorded: labels, and the best class of each crop.
GOLDEN = {
    ("pets", "chelsea"): [("cat", "Egyptian cat")],
    ("pets", "coffee"): [],
    ("objects", "coffee"): [("cup", "espresso")],
}


@pytest.fixture(scope="module")
def store(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipelines")
    for name in ("yolov4_tiny", "mobilenet_v2", "efficientnet_lite0"):
        shutil.copytree(models / name, folder / name)
    (folder / "pipelines").mkdir()
    return folder


@pytest.fixture(scope="module")
def own(store, tmp_path_factory):
    settings = {"ZOOSERVE_MODELS": str(store), "ZOOSERVE_ADMIN_KEYS": "admin-key", "ZOOSERVE_WATCH_S": "0.2"}
    settings |= {"ZOOSERVE_GRPC_PORT": str(port := free_port())}
    with serving(tmp_path_factory.mktemp("own") / "log", **settings) as server:
        server.grpc = f"127.0.0.1:{port}"
        server.wait(200)
        yield server


def ask(server, name, data, **params):
    return server.client.post(f"/v1/pipelines/{name}", params=params, content=data)


def same(one, other) -> bool:
    """Equal but for the arithmetic of batches of different sizes."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == pytest.approx(other, abs=1e-3) if isinstance(one, float) else one == other


@pytest.mark.parametrize(("name", "sample"), GOLDEN)
def test_golden_answers(own, photo, name, sample):
    answer = ask(own, name, photo(sample), score_threshold=0.4).json()
    assert answer["pipeline"] == name
    found = [(each["label"], each["second"]["predictions"][0]["label"]) for each in answer["predictions"]]
    assert found == GOLDEN[name, sample]


def test_all_protocols_have_one_answer(own, photo, tmp_path, triton):
    data = photo("chelsea")
    expected = ask(own, "pets", data, top_k=2).json()
    with Client(own.url) as client:
        result = client.pipeline("pets", data, top_k=2)
        assert {"pets", "objects"} <= {each["name"] for each in client.pipelines() if each["ready"]}
    assert same(result.to_dict(), expected)
    assert result.second[0].labels == [each["label"] for each in expected["predictions"][0]["second"]["predictions"]]

    rest = triton_http.InferenceServerClient(own.url.removeprefix("http://"))
    remote = triton.InferenceServerClient(own.grpc)
    for library, speaker in ((triton_http, rest), (triton, remote)):
        tensor = library.InferInput("image", [2], "BYTES")
        tensor.set_data_from_numpy(np.array([data, data], object))
        results = speaker.infer("pets", [tensor], parameters={"top_k": 2}).as_numpy("result")
        assert [same(json.loads(each), expected) for each in results] == [True, True]
        assert speaker.is_model_ready("pets")
        with pytest.raises(InferenceServerException, match="The pipeline `pets` has the version 1, not 7"):
            speaker.infer("pets", [tensor], model_version="7")
    assert rest.get_model_metadata("pets")["outputs"] == [{"name": "result", "datatype": "BYTES", "shape": [-1]}]
    assert "pets" in [each["name"] for each in rest.get_model_repository_index()]
    assert rest.get_inference_statistics("pets")["model_stats"][0]["inference_stats"]["success"]["count"] >= 3

    path = tmp_path / "chelsea.png"
    path.write_bytes(data)
    with bentoml.SyncHTTPClient(own.url) as bento:
        assert same(bento.pipeline(image=path, name="pets", options={"top_k": 2}), expected)
        assert bento.pipeline(image=path, name="pets", options=None)["predictions"]


def test_the_command_answers_alike(own, models, photo, tmp_path):
    path = tmp_path / "chelsea.png"
    path.write_bytes(photo("chelsea"))
    arguments = ["predict", "pets", str(path), "--models", str(models)]
    answer = json.loads(CliRunner().invoke(main, [*arguments, "--json", "-o", "top_k=2"]).stdout)
    assert same(answer, ask(own, "pets", photo("chelsea"), top_k=2).json())
    refused = CliRunner().invoke(main, [*arguments, "--task", "embed"])
    assert "pets is a pipeline; its card says what is asked" in refused.output


def test_several_images_and_drawn_answers(own, photo):
    parts = [("image", photo("chelsea")), ("image", b"no image"), ("image", photo("coffee"))]
    first, bad, last = own.client.post("/v1/pipelines/objects", files=parts).json()["results"]
    assert (first["pipeline"], bad["reason"], last["predictions"][0]["label"]) == ("objects", "not_an_image", "cup")
    drawn = own.client.post("/v1/pipelines/pets", content=photo("chelsea"), headers={"accept": "image/png"})
    image = Image.open(io.BytesIO(drawn.content)).convert("RGB")
    plain = Image.open(io.BytesIO(photo("chelsea"))).convert("RGB")
    assert image.size == plain.size
    assert np.abs(np.asarray(image, int) - np.asarray(plain, int)).max() > 50


@pytest.mark.parametrize(
    ("name", "params", "body", "status", "said"),
    [
        ("nothing", {}, None, 404, "There is no pipeline `nothing`. There are: objects, pets"),
        ("pets", {"top_k": "many"}, None, 422, "`top_k=many`: expected a whole number from 1 to 1000"),
        ("pets", {"model": "yolov4_tiny"}, None, 422, "There is no option `model` of the pipeline `pets`"),
        ("pets", {}, b"no image", 415, "not an image"),
        ("pets", {}, b"", 400, "no bytes"),
    ],
)
def test_what_cannot_be_answered_is_refused(own, photo, name, params, body, status, said):
    response = ask(own, name, photo("chelsea") if body is None else body, **params)
    assert response.status_code == status, response.text
    assert said in response.json()["detail"]


def test_a_pipeline_that_is_asked_as_a_model_is_told_apart(own, photo):
    refused = own.client.post("/v1/detect?model=pets", content=photo("chelsea"))
    assert refused.status_code == 404
    assert refused.json()["detail"] == "`pets` is a pipeline, not a model: POST /v1/pipelines/pets."


def test_a_pipeline_of_ones_own_is_found_while_the_server_runs(own, store, photo):
    card = 'name = "mine"\ntitle = "Mine"\ndetect = { model = "yolov4_tiny" }\n'
    path = store / "pipelines" / "mine.toml"
    path.write_text(card + 'second = { task = "segment", model = "mobilenet_v2" }\n')
    time.sleep(0.3)
    wrong = ask(own, "mine", photo("chelsea"))
    assert wrong.status_code == 503
    assert "`mobilenet_v2` is a model for /v1/classify, not for /v1/segment" in wrong.json()["detail"]
    with Client(own.url, retries=0) as client, pytest.raises(ZooserveError, match="not for /v1/segment"):
        client.pipeline("mine", photo("chelsea"))
    path.write_text(card + 'second = { task = "embed", model = "mobilenet_v2" }\n')
    time.sleep(0.3)
    (found,) = ask(own, "mine", photo("chelsea"), score_threshold=0.5).json()["predictions"]
    assert len(found["second"]["predictions"][0]["embedding"]) == 1280


def test_an_unloaded_second_model_is_said_and_a_new_version_answers(own, store, models, photo):
    own.client.post("/v1/models/mobilenet_v2/unload", headers=KEY).raise_for_status()
    refused = ask(own, "pets", photo("chelsea"))
    assert refused.status_code == 503
    assert refused.json()["detail"].startswith("The pipeline `pets` cannot answer: `mobilenet_v2` is not served")
    counted = own.client.get("/metrics").text
    assert 'zooserve_requests_total{code="503",model="pets",task="pipeline"} 1.0' in counted
    listed = {each["name"]: each for each in own.client.get("/v1/pipelines").json()["pipelines"]}
    assert (listed["pets"]["ready"], listed["objects"]["ready"]) == (False, True)
    assert "unloaded" in own.client.get("/v1/pipelines/pets").json()["reason"]
    for name in ("mobilenet_v2", "yolov4_tiny"):
        publish(store, models, "2", name=name)
        own.client.post(f"/v1/models/{name}/load", headers=KEY).raise_for_status()
    answer = ask(own, "pets", photo("chelsea")).json()
    assert (answer["version"], answer["predictions"][0]["second"]["version"]) == ("2", "2")
    assert answer["predictions"][0]["second"]["predictions"][0]["label"] == "Egyptian cat"


def test_both_models_are_loaded_when_they_are_asked_for(models, photo, tmp_path):
    for name, task_default in (("yolov4_tiny", False), ("mobilenet_v2", False), ("lenet5", True)):
        copy = shutil.copytree(models / name / "1", tmp_path / "models" / name / "1")
        card = read_served_card(copy / "card.json")
        write_served_card(msgspec.structs.replace(card, task_default=task_default), copy / "card.json")
    settings = {
        "ZOOSERVE_MODELS": str(tmp_path / "models"),
        "ZOOSERVE_MEMORY_MB": "1500",
        "ZOOSERVE_MAX_BATCH": "1",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    with serving(tmp_path / "log", **settings) as server:
        server.wait(200, 120)
        states = {each["name"]: each["state"] for each in server.client.get("/v1/models").json()["models"]}
        assert (states["yolov4_tiny"], states["mobilenet_v2"]) == ("on_demand", "on_demand")
        assert server.client.get("/v1/pipelines/pets").json()["ready"]
        answer = ask(server, "pets", photo("chelsea"))
        assert answer.status_code == 200, answer.text
        assert answer.json()["predictions"][0]["second"]["model"] == "mobilenet_v2"
        states = {each["name"]: each["state"] for each in server.client.get("/v1/models").json()["models"]}
        assert (states["yolov4_tiny"], states["mobilenet_v2"]) == ("ready", "ready")


def test_the_zoos_pipelines_are_whole():
    assert sorted(path.stem for path in (ROOT / "zoo/pipelines").glob("*.toml")) == ["objects", "pets"]
