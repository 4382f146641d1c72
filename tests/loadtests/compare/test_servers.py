"""What each server is asked, and how its answers are understood."""

import json
import sys
from base64 import b64decode
from email import message_from_bytes
from pathlib import Path

import pytest

from loadtests.compare.environments import _current, ensure
from loadtests.compare.servers import PEERS, SERVERS
from loadtests.compare.trial import WrongAnswerError, check_answer, rate_of

JPEG = b"\xff\xd8 a photo \r\n\r\n"
ANSWER = {"predictions": [{"class_id": 1, "label": "a", "score": 0.5}]}
TENSOR = {"outputs": [{"data": [json.dumps(ANSWER)]}]}


@pytest.mark.parametrize("name", ["zooserve", "rayserve", "torchserve"])
def test_raw(name):
    assert SERVERS[name].request(JPEG, "classify").body == JPEG


@pytest.mark.parametrize(
    ("task", "path"), [("classify", "/v1/classify"), ("detect", "/v1/detect"), ("segment", "/v1/segment?mask=png")]
)
def test_zooserve_is_asked_by_task_and_answers_masks_as_its_peers_do(task, path):
    assert SERVERS["zooserve"].request(JPEG, task).path == path


@pytest.mark.parametrize("threads", [0, 1])
def test_what_a_server_is_told(threads):
    folder = Path("/store/u2netp/1")
    peer = SERVERS["fastapi"].environ(4000, "pillow", folder, threads)
    told = {name: peer[f"COMPARE_{name}"] for name in ("PORT", "PIXELS", "MODEL", "THREADS")}
    assert told == {"PORT": "4000", "PIXELS": "pillow", "MODEL": str(folder), "THREADS": str(threads)}
    ours = SERVERS["zooserve"].environ(4000, "pillow", folder, threads)
    told = {name: ours[f"ZOOSERVE_{name}"] for name in ("MODELS", "LOAD", "PIXELS")}
    assert told == {"MODELS": "/store", "LOAD": "u2netp", "PIXELS": "exact"}


@pytest.mark.parametrize(("name", "part"), [("fastapi", "image"), ("litserve", "image"), ("bentoml", "images")])
def test_multipart(name, part):
    request = SERVERS[name].request(JPEG, "classify")
    head = f"Content-Type: {request.headers['Content-Type']}\r\n\r\n".encode()
    (found,) = message_from_bytes(head + request.body).get_payload()
    assert found.get_param("name", header="content-disposition") == part
    assert found.get_payload(decode=True) == JPEG


def test_mlserver():
    body = json.loads(SERVERS["mlserver"].request(JPEG, "classify").body)
    assert b64decode(body["inputs"][0]["data"][0]) == JPEG


def test_binary_tensor():
    request = SERVERS["pytriton"].request(JPEG, "classify")
    size = int(request.headers["Inference-Header-Content-Length"])
    head, tensor = json.loads(request.body[:size]), request.body[size:]
    assert len(tensor) == head["inputs"][0]["parameters"]["binary_data_size"]
    assert int.from_bytes(tensor[:4], "little") == len(JPEG)
    assert tensor[4:] == JPEG


@pytest.mark.parametrize("name", SERVERS)
def test_answers(name):
    body = {"bentoml": [ANSWER], "mlserver": TENSOR, "pytriton": TENSOR}.get(name, ANSWER)
    assert SERVERS[name].predictions(body) == ANSWER["predictions"]


@pytest.mark.parametrize("name", [name for name in SERVERS if name != "zooserve"])
def test_every_peer_pins_what_it_needs(name):
    requirements = (PEERS / name / "requirements.txt").read_text()
    assert "-r ../common.txt" in requirements
    assert SERVERS[name].packages[0] in requirements
    assert (PEERS / name / "server.py").is_file()


def test_only_zooserve_is_told_the_deadline():
    told = {name: server.deadline(250.0) for name, server in SERVERS.items()}
    assert told.pop("zooserve") == {"X-Request-Timeout-Ms": "250"}
    assert not any(told.values())


def test_zooserve_needs_no_environment_of_its_own():
    assert str(SERVERS["zooserve"].environment) == sys.prefix
    assert ensure([SERVERS["zooserve"]]) == {}
    assert SERVERS["zooserve"].versions()["onnxruntime"]


def test_an_environment_is_current_until_its_requirements_change(tmp_path, monkeypatch):
    from loadtests.compare import environments, servers

    monkeypatch.setattr(servers, "ENVIRONMENTS", tmp_path)
    server = SERVERS["fastapi"]
    assert not _current(server)
    (tmp_path / "fastapi").mkdir()
    (tmp_path / "fastapi" / "requirements.sha256").write_text(environments._digest(server))
    assert _current(server)
    (tmp_path / "fastapi" / "requirements.sha256").write_text("another")
    assert not _current(server)


@pytest.mark.parametrize(("words", "rate"), [("120", 120), ("80%", 160), ("0.5", 0.5), ("100%", 200)])
def test_rates(words, rate):
    assert rate_of(words, 200) == rate


@pytest.mark.parametrize("words", ["0", "-5", "0%", "fast", "", "%", "nan"])
def test_rates_that_are_none(words):
    with pytest.raises(ValueError, match="requests per second"):
        rate_of(words, 200)


def predictions(*pairs):
    return [{"class_id": class_id, "label": "x", "score": score} for class_id, score in pairs]


def check(body):
    check_answer(SERVERS["fastapi"], body, predictions((1, 0.5), (2, 0.25)))


def test_the_same_answer():
    check(json.dumps({"predictions": predictions((1, 0.5004), (2, 0.2499))}).encode())


@pytest.mark.parametrize(
    "given",
    [
        predictions((1, 0.5)),
        predictions((2, 0.25), (1, 0.5)),
        predictions((1, 0.5), (3, 0.25)),
        predictions((1, 0.5), (2, 0.252)),
        [],
    ],
)
def test_another_answer(given):
    with pytest.raises(WrongAnswerError, match="bare loop"):
        check(json.dumps({"predictions": given}).encode())


@pytest.mark.parametrize("body", [b"", b"ok", b"[]", b"{}", b"null", b'{"predictions": [1, 2]}'])
def test_an_answer_that_is_none(body):
    with pytest.raises(WrongAnswerError, match="it answers"):
        check(body)
