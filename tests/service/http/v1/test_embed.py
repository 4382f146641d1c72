"""`/v1/embed`: the features of a classifier, in every form and over every protocol, and what has none."""

import io
import re
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image
from zooserve_client import Client

from service.tasks import TASKS, can_answer
from tests.conftest import ROOT
from zoo.store import Store

CLASSIFIER = {"model": "mobilenet_v2"}
BINARY = {"accept": "application/octet-stream"}


def embed(server, image, **params):
    return server.client.post("/v1/embed", content=image, params=params)


def test_features_lead_to_the_classes_of_the_same_model(server, photo, models):
    """The last layer of the network, applied to the embedding, gives the class's probability."""
    vector = np.array(embed(server, photo("coffee"), **CLASSIFIER).json()["predictions"][0]["embedding"])
    tensors = onnx.load(models / "mobilenet_v2/1/model.onnx").graph.initializer
    (weight,) = (array for x in tensors if (array := numpy_helper.to_array(x)).shape == (1000, 1280))
    (bias,) = (array for x in tensors if (array := numpy_helper.to_array(x)).shape == (1000,))
    logits = weight @ vector + bias
    probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    best = server.client.post("/v1/classify", content=photo("coffee"), params=CLASSIFIER).json()["predictions"][0]
    assert probabilities.argmax() == best["class_id"]
    assert probabilities.max() == pytest.approx(best["score"], abs=1e-5)


def test_json_and_binary_are_the_same_numbers(server, photo):
    answer = embed(server, photo("coffee"), **CLASSIFIER).json()
    assert (answer["task"], answer["model"]) == ("embed", "mobilenet_v2")
    binary = server.client.post("/v1/embed", content=photo("coffee"), params=CLASSIFIER, headers=BINARY)
    assert binary.headers["content-type"] == "application/octet-stream"
    vector = np.frombuffer(binary.content, "<f4")
    assert vector.shape == (1280,)
    assert vector.tolist() == answer["predictions"][0]["embedding"]


def test_normalised_features_compare_photos(server, photo):
    """Two crops of one photo are nearer to each other than to another photo."""
    with Client(server.url) as client:
        found = {
            name: client.embed(photo(name), normalize=True).embedding for name in ("chelsea", "coffee", "astronaut")
        }
        crop = Image.open(io.BytesIO(photo("chelsea"))).convert("RGB").crop((20, 20, 430, 290))
        near = client.embed(crop, normalize=True).embedding
        plain = client.embed(photo("chelsea")).embedding
        with pytest.raises(ValueError, match="which has no embedding"):
            client.classify(photo("chelsea")).embedding  # noqa: B018
    assert all(np.linalg.norm(vector) == pytest.approx(1, abs=1e-5) for vector in (*found.values(), near))
    np.testing.assert_allclose(plain / np.linalg.norm(plain), found["chelsea"], atol=1e-6)
    assert near @ found["chelsea"] > 0.8 > max(near @ found["coffee"], near @ found["astronaut"])


def test_several_images_are_answered_in_order(server, photo):
    files = [("image", photo(name)) for name in ("coffee", "chelsea")]
    results = server.client.post("/v1/embed", files=files).json()["results"]
    alone = [embed(server, photo(name)).json() for name in ("coffee", "chelsea")]
    for one, other in zip(results, alone, strict=True):
        assert one["predictions"][0]["embedding"] == pytest.approx(other["predictions"][0]["embedding"], abs=1e-4)


@pytest.mark.parametrize(
    ("params", "headers", "status", "detail"),
    [
        ({"model": "yolov4_tiny"}, {}, 422, "`yolov4_tiny` is a model for /v1/detect, not for /v1/embed"),
        ({"model": "lenet5"}, {}, 422, "`lenet5` does not answer /v1/embed: .* no output `embedding`.*`mobilenet_v2`"),
        ({"normalize": "maybe"}, {}, 422, "normalize"),
        ({"top_k": "1"}, {}, 422, "top_k"),
        ({}, {"accept": "image/png"}, 406, "`application/json`, `application/octet-stream`"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_a_reason(server, photo, params, headers, status, detail):
    answer = server.client.post("/v1/embed", content=photo("coffee"), params=params, headers=headers)
    assert answer.status_code == status
    assert re.search(detail, answer.json()["detail"]), answer.text


def test_binary_is_for_embeddings_alone(server, photo):
    assert server.client.post("/v1/detect", content=photo("coffee"), headers=BINARY).status_code == 406
    several = [("image", photo("coffee"))] * 2
    refused = server.client.post("/v1/embed", files=several, headers=BINARY)
    assert (refused.status_code, refused.json()["reason"]) == (406, "not_acceptable")


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--task", "embed", "-o", "normalize=true"], 0, "1280 numbers: .* 1.0000"),
        (["--task", "embed", "--annotate", "x.png"], 2, "an answer to embed cannot be drawn"),
        (["--task", "detect"], 2, "mobilenet_v2 cannot detect: it is a model for classify"),
        (["--task", "embed", "-o", "top_k=1"], 1, "top_k"),
    ],
)
def test_the_command_line_answers_the_task_that_is_named(models, tmp_path, options, code, said):
    command = [sys.executable, "-c", "from zoo.cli import main; main()", "predict", "mobilenet_v2"]
    command += [str(ROOT / "docs/coffee.jpg"), "--models", str(models), *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert re.search(said, " ".join((done.stdout + done.stderr).split()))
    assert not (tmp_path / "x.png").exists()


def test_the_table_says_which_models_answer(models):
    cards = {name: Store(models).latest(name).card for name in ("mobilenet_v2", "lenet5", "u2netp")}
    answered = {name: {task for task in TASKS if can_answer(card, task)} for name, card in cards.items()}
    assert answered == {"mobilenet_v2": {"classify", "embed"}, "lenet5": {"classify"}, "u2netp": {"segment"}}
