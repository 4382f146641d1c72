"""The page's files over HTTP: what the browser is told, what is open, which samples there are."""

import hashlib
import re
from pathlib import Path

import pytest

from service.http import ui
from tests.conftest import serving

STATIC = Path(ui.__file__).parent / "static"
FILES = sorted(path.name for path in STATIC.iterdir() if path.is_file())
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


@pytest.fixture(scope="module")
def locked(models, tmp_path_factory):
    log = tmp_path_factory.mktemp("locked") / "log"
    with serving(log, ZOOSERVE_MODELS=str(models), ZOOSERVE_LOAD="lenet5", ZOOSERVE_API_KEYS="secret") as server:
        server.wait(200)
        yield server


def test_the_address_without_a_slash_redirects_to_the_page(server):
    answer = server.client.get("/ui", follow_redirects=True)
    assert answer.status_code == 200
    assert answer.url.path == "/ui/"
    assert "<title>zooserve</title>" in answer.text


@pytest.mark.parametrize("name", FILES)
def test_every_file_has_its_type_and_a_content_security_policy(server, name):
    answer = server.client.get(f"/ui/{name}")
    assert answer.status_code == 200
    assert answer.headers["content-type"].split(";")[0] == TYPES[name.rpartition(".")[2]]
    assert answer.headers["x-content-type-options"] == "nosniff"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'; img-src 'self' blob: data:;" in policy
    assert "unsafe" not in policy
    again = server.client.get(f"/ui/{name}", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("name", FILES)
def test_no_file_names_another_host_or_holds_what_the_policy_forbids(name):
    text = (STATIC / name).read_text()
    assert set(re.findall(r"https?://[^\"'\s)]+", text)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<script(?![^>]+src=)|\sstyle=|\son\w+=\"", text)


@pytest.mark.parametrize(
    "path", ["nothing.js", "__init__.py", "..%2fpy.typed", "samples/lenet5/card.json", "samples/x/y.png"]
)
def test_unknown_files_are_not_served(server, path):
    assert server.client.get(f"/ui/{path}").status_code == 404


def test_the_samples_are_the_golden_photos_without_duplicates(server, models):
    samples = server.client.get("/ui/samples").json()["samples"]
    bodies = [server.client.get(f"/ui/{sample['path']}") for sample in samples]
    photos = {hashlib.sha256(path.read_bytes()).digest() for path in models.glob("*/*/golden/*")}
    assert {hashlib.sha256(body.content).digest() for body in bodies} == photos
    assert len(samples) == len(photos)
    assert {body.headers["content-type"] for body in bodies} == {"image/png"}
    assert next(s["models"] for s in samples if s["name"] == "digit_7.png") == ["lenet5"]


def test_with_keys_the_page_is_open_but_its_data_is_not(locked):
    assert {locked.client.get(f"/ui/{name}").status_code for name in ["", *FILES]} == {200}
    for path in ("/ui/samples", "/ui/samples/lenet5/digit_7.png", "/v1/models", "/ui/x"):
        assert locked.client.get(path).status_code == 401
        assert locked.client.get(path, headers={"Authorization": "Bearer secret"}).status_code == (
            404 if path == "/ui/x" else 200
        )


def test_the_root_redirects_to_the_page(server):
    """BentoML's own page lies there, which loads a tracker from elsewhere."""
    response = server.client.get("/")
    assert response.status_code == 307
    assert response.headers["location"] == "ui/"
    assert "<title>" in server.client.get("/", follow_redirects=True).text
