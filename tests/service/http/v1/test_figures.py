"""Poses and rotated boxes through the real server: every protocol and form, and what is drawn.

The server tests both models against their golden answers as it starts.
"""

import io
import json
import subprocess
import sys

import bentoml
import grpc
import jsonschema
import msgspec
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from zooserve_client import Client

from loadtests.oip_grpc import infer_request, result_of
from service.commands.load import load_model
from service.grpc.schema import SERVICE
from service.http.docs.openapi import document
from service.vision.draw import colour_of
from tests.conftest import free_port, serving
from tests.service import figures
from zoo.rotated import corners
from zooserve.models import LocalModel

DOCUMENT = msgspec.json.decode(document())
RUN = "from zoo.cli import main; main()"
TASKS = [("pose", "walker"), ("obb", "decks")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    figures.publish(folder)
    return folder


@pytest.fixture(scope="module")
def server(folder, tmp_path_factory):
    settings = {"ZOOSERVE_MODELS": str(folder / "models"), "ZOOSERVE_GRPC_PORT": str(port := free_port())}
    with serving(tmp_path_factory.mktemp("server") / "log", **settings) as server:
        server.wait(200)
        server.grpc = f"127.0.0.1:{port}"
        yield server


@pytest.fixture(scope="module")
def image(folder) -> bytes:
    return (folder / "black.png").read_bytes()


@pytest.mark.parametrize(("task", "model"), TASKS)
def test_answers_match_the_schema_and_are_the_same_over_all_protocols(server, image, folder, task, model):
    answer = server.client.post(f"/v1/{task}", content=image, params={"score_threshold": 0.5}).json()
    assert (answer["task"], answer["model"]) == (task, model)
    assert [p["score"] for p in answer["predictions"]] == ([0.9, 0.6] if task == "pose" else [0.9, 0.7, 0.6])
    schema = DOCUMENT["paths"][f"/v1/{task}"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(answer)
    with bentoml.SyncHTTPClient(server.url) as client:
        assert getattr(client, task)(image=folder / "black.png", score_threshold=0.5) == answer
    with grpc.insecure_channel(server.grpc) as channel:
        call = channel.unary_unary(f"/{SERVICE.full_name}/ModelInfer")
        response = call(infer_request(model, image, {"score_threshold": "0.5"}))
    assert json.loads(result_of(response)) == answer


def test_the_client_has_keypoints_and_rotated_boxes_as_arrays(server, image):
    with Client(server.url) as client:
        poses, decks, none = client.pose(image), client.obb(image), client.obb(image, score_threshold=1)
    assert poses.keypoints.shape == (3, 3, 3)
    np.testing.assert_allclose(poses.keypoints[:2], figures.SKELETON, atol=1e-4)
    assert list(poses.predictions[0]["keypoints"]) == ["head", "hip", "foot"]
    np.testing.assert_allclose(decks.rotated_boxes, figures.IN_IMAGE, atol=1e-4)
    np.testing.assert_allclose(decks.corners, corners(np.array(figures.IN_IMAGE)), atol=0.01)
    assert (none.rotated_boxes.shape, none.corners.shape) == ((0, 5), (0, 4, 2))


def test_rotated_boxes_convert_to_supervision(server, image):
    sv = pytest.importorskip("supervision")
    with Client(server.url) as client:
        found, none = client.obb(image).to_supervision(), client.obb(image, score_threshold=1).to_supervision()
        poses = client.pose(image).to_supervision()
    assert found.xyxy[2].tolist() == pytest.approx(
        [*corners(np.array(figures.IN_IMAGE))[2].min(0), *corners(np.array(figures.IN_IMAGE))[2].max(0)], abs=0.02
    )
    assert sv.OrientedBoxAnnotator().annotate(np.zeros((96, 128, 3), np.uint8), found).any()
    assert (len(none), len(poses), poses.xyxy[0].tolist()) == (0, 3, [8, 8, 72, 88])


def test_poses_in_cocos_form_are_read_by_pycocotools(server, image):
    found = server.client.post("/v1/pose", content=image, params={"form": "coco"}).json()["predictions"]
    truth = COCO()
    truth.dataset = {"images": [{"id": 7}], "categories": [{"id": 1}], "annotations": []}
    truth.createIndex()
    loaded = truth.loadRes([one | {"image_id": 7} for one in found])
    assert [one["category_id"] for one in loaded.anns.values()] == [1, 1, 1]
    assert loaded.anns[1]["keypoints"] == pytest.approx(np.ravel(figures.SKELETON[0]))


def drawn(server, task: str, image: bytes, **params) -> np.ndarray:
    params |= {"score_threshold": 0.5}
    answer = server.client.post(f"/v1/{task}", content=image, params=params, headers={"accept": "image/png"})
    assert answer.status_code == 200, answer.text
    return np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB")).astype(int)


@pytest.mark.parametrize("form", ["named", "coco"])
def test_a_skeleton_is_drawn_between_clear_keypoints(server, image, form):
    picture = drawn(server, "pose", image, form=form)
    assert picture.shape == (96, 128, 3)
    assert picture[24, 40].tolist() == list(colour_of(0))  # on the way from head to hip
    assert picture[24, 20].tolist() == list(colour_of(0))  # the head
    assert picture[50, 60].tolist() == [0, 0, 0]  # on the way to the foot, which is not clear
    assert picture[22, 110].tolist() == list(colour_of(1))  # the second pose has a colour of its own


def test_rotated_boxes_are_drawn_along_their_sides(server, image):
    picture = drawn(server, "obb", image)
    ends = corners(np.array(figures.IN_IMAGE))[2]
    for one, other in zip(ends, np.roll(ends, -1, 0), strict=True):
        x, y = ((one + other) / 2).round().astype(int)
        assert np.abs(picture[y - 1 : y + 2, x - 1 : x + 2] - colour_of(1)).sum(2).min() == 0
    x, y = figures.IN_IMAGE[2][:2]
    assert picture[int(y), int(x)].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        ("walker", [], "2 of 3"),
        ("walker", ["-o", "form=coco"], "CATEGORY_ID"),
        ("decks", [], "28.6"),  # degrees
        ("decks", ["--task", "obb"], "DEGREES"),
    ],
)
def test_predict_prints_and_draws_them(folder, tmp_path, model, options, said):
    command = [sys.executable, "-c", RUN, "predict", model, str(folder / "black.png"), *options]
    command += ["--models", str(folder / "models"), "--annotate", str(tmp_path / "drawn.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
    assert np.asarray(Image.open(tmp_path / "drawn.png")).any()


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("walker", ["--task", "detect"], "walker cannot detect: it is a model for pose"),
        ("walker", ["--task", "embed"], "walker cannot embed: its graph has no output embedding"),
    ],
)
def test_predict_refuses_a_task_that_the_model_does_not_answer(folder, model, options, message):
    command = [sys.executable, "-c", RUN, "predict", model, str(folder / "black.png"), *options]
    done = subprocess.run([*command, "--models", str(folder / "models")], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())


@pytest.mark.parametrize(("task", "model"), TASKS)
def test_a_notebook_draws_the_same(server, image, folder, task, model):
    answer = LocalModel(load_model(model, str(folder / "models")))(image, score_threshold=0.5)
    assert np.array_equal(np.asarray(answer.plot()), drawn(server, task, image))
