"""Pages of other origins: none by default; where they are let in, they can read every answer, refusals too."""

import pytest

from service.http.cors import cors_headers, origins_of
from service.settings import SettingError, Settings
from tests.conftest import serving
from tests.service.http.conftest import Wire

PAGE = "http://a.example"
ASKS = {
    "Origin": PAGE,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "content-type,x-api-key",
}
PATHS = [
    "/v1/classify",
    "/v2/models/lenet5/infer",
    "/classify",
    "/v1/models",
    "/v2",
    "/livez",
    "/v1/models/lenet5/load",
]


@pytest.fixture(scope="module")
def letting_in(models, tmp_path_factory):
    settings = {
        "ZOOSERVE_LOAD": "lenet5",
        "ZOOSERVE_CORS_ORIGINS": f"https://b.example:8443, {PAGE}/",
        "ZOOSERVE_API_KEYS": "user",
        "ZOOSERVE_MAX_BODY_MB": "0.1",
    }
    with serving(tmp_path_factory.mktemp("cors") / "log", ZOOSERVE_MODELS=str(models), **settings) as server:
        server.wait(200)
        yield server


@pytest.mark.parametrize("path", PATHS)
def test_preflights_need_no_key(letting_in, small, path):
    response = letting_in.client.options(path, headers=ASKS)
    assert response.is_success, response.text
    assert response.headers["access-control-allow-origin"] == PAGE
    assert "POST" in response.headers["access-control-allow-methods"]
    assert response.headers["access-control-allow-headers"] == "content-type,x-api-key"
    refused = letting_in.client.options(path, headers=ASKS | {"Origin": "http://c.example"})
    assert "access-control-allow-origin" not in refused.headers
    off = small.client.options(path, headers=ASKS)
    assert not off.is_success
    assert "access-control-allow-origin" not in off.headers


@pytest.mark.parametrize(
    ("method", "path", "sent", "status"),
    [
        ("POST", "/v1/classify", {"content": b"x"}, 415),
        ("POST", "/v1/classify?top_k=-1", {"content": b"x"}, 422),
        ("POST", "/v1/classify", {"content": bytes(200_000)}, 413),
        ("POST", "/v1/none", {"content": b"x"}, 404),
        ("POST", "/classify", {"content": b"x"}, 415),
        ("POST", "/v2/models/lenet5/infer", {"content": b"{"}, 400),
        ("POST", "/v2/models/none/infer", {"content": b"{}"}, 404),
        ("GET", "/v2/models/lenet5", {}, 200),
        ("GET", "/v1/models", {}, 200),
        ("GET", "/livez", {}, 200),
        ("GET", "/no/such/path", {}, 404),
        ("PUT", "/v1/models", {}, 405),
    ],
)
def test_every_answer_has_the_cors_headers(letting_in, method, path, sent, status):
    response = letting_in.client.request(method, path, headers={"Origin": PAGE, "X-API-Key": "user"}, **sent)
    assert response.status_code == status, response.text
    assert response.headers["access-control-allow-origin"] == PAGE
    assert "Retry-After" in response.headers["access-control-expose-headers"]
    assert "Origin" in response.headers["vary"]
    without_key = letting_in.client.request(method, path, headers={"Origin": PAGE}, **sent)
    assert without_key.headers["access-control-allow-origin"] == PAGE
    other = letting_in.client.request(method, path, headers={"Origin": "http://c.example"}, **sent)
    assert "access-control-allow-origin" not in other.headers


def test_an_answer_of_the_connection_has_the_cors_headers(letting_in):
    answer = Wire(letting_in).ask(b"GET /livez HTTP/1.1\r\norigin: http://a.example\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"access-control-allow-origin: http://a.example\r\n" in answer


@pytest.mark.parametrize(
    ("given", "origin", "allowed"),
    [
        ("", PAGE, None),
        ("*", PAGE, b"*"),
        (PAGE, PAGE, PAGE.encode()),
        (PAGE, "http://a.example:81", None),
        (PAGE, "", None),
    ],
)
def test_only_configured_origins_are_allowed(given, origin, allowed):
    headers = dict(cors_headers(Settings(cors_origins=given), [(b"origin", origin.encode())]))
    assert headers.get(b"access-control-allow-origin") == allowed


@pytest.mark.parametrize("given", ["a.example", "http://a.example/path", "ftp://a", "http://*.example", "http://a b"])
def test_an_invalid_origin_prevents_the_start(given):
    with pytest.raises(SettingError, match="ZOOSERVE_CORS_ORIGINS"):
        origins_of(Settings(cors_origins=given))
