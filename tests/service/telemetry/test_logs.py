"""The log as JSON, a line per request, and nothing in it that should not be there."""

import base64
import json

import pytest

from tests.conftest import serving

SETTINGS = {
    "ZOOSERVE_LOAD": "lenet5",
    "ZOOSERVE_LOG": "json",
    "ZOOSERVE_ACCESS_LOG": "true",
    "ZOOSERVE_API_KEYS": "user-key-1",
    "ZOOSERVE_ADMIN_KEYS": "admin-key-2",
}


@pytest.fixture(scope="module")
def lines(models, tmp_path_factory):
    log = tmp_path_factory.mktemp("logs") / "log"
    digit = (models / "lenet5/1/golden/digit_7.png").read_bytes()
    with serving(log, ZOOSERVE_MODELS=str(models), **SETTINGS) as server:
        server.wait(200)
        key = {"Authorization": "Bearer user-key-1"}
        server.client.post("/v1/classify", content=digit, headers=key | {"X-Request-Id": "good-1"})
        images = {"images": [base64.b64encode(digit).decode()]}
        server.client.post("/v1/classify", json=images, headers=key | {"X-Request-Id": "good-2"})
        server.client.post("/v1/classify", content=b"\xff\xd8\xff\xe0broken", headers=key | {"X-Request-Id": "bad-1"})
        server.client.post("/v1/classify?model=none", content=digit, headers=key | {"X-Request-Id": "bad-2"})
        server.client.post("/v1/classify", content=digit, headers={"X-Request-Id": "bad-3", "X-API-Key": "wrong-key-3"})
        server.client.post("/v1/models/reload", headers={"Authorization": "Bearer admin-key-2"})
    text = log.read_text()
    for secret in ("user-key-1", "admin-key-2", "wrong-key-3", images["images"][0][:40], "PNG"):
        assert secret not in text
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")], text


def test_every_line_of_a_server_process_is_an_object(lines):
    objects, text = lines
    plain = [line for line in text.splitlines() if not line.startswith("{")]
    assert len(plain) == 1, "text, but not where the server is"
    assert plain[0].startswith("Serving ")
    assert all({"level", "logger", "message", "time"} <= entry.keys() for entry in objects)
    assert [entry["message"][:8] for entry in objects if "process" not in entry] == ["Starting"], "of the parent"
    assert any(entry["message"].startswith("lenet5 is ready") for entry in objects)


@pytest.mark.parametrize(
    ("request_id", "status", "refused"),
    [("good-1", 200, ""), ("good-2", 200, ""), ("bad-1", 400, "undecodable"), ("bad-2", 404, "unknown_model"),
     ("bad-3", 401, "unauthorised")],
)  # fmt: skip
def test_one_line_per_request(lines, request_id, status, refused):
    (entry,) = (entry for entry in lines[0] if entry.get("request_id") == request_id)
    assert (entry["status"], entry["refused"], entry["task"]) == (status, refused, "classify")
    assert entry["total_ms"] > 0
    assert ("infer_ms" in entry) == (status == 200)


def test_text_has_the_same_line(models, tmp_path):
    settings = SETTINGS | {"ZOOSERVE_LOG": "text", "ZOOSERVE_API_KEYS": ""}
    with serving(tmp_path / "log", ZOOSERVE_MODELS=str(models), **settings) as server:
        server.wait(200)
        server.client.post("/v1/classify", content=b"nothing", headers={"X-Request-Id": "text-1"})
    assert "request request_id=text-1 task=classify model=lenet5 status=4" in (tmp_path / "log").read_text()
