"""Locust as it is called on the command line, from any folder: without its page, and with it in a browser."""

import contextlib
import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

from tests.conftest import free_port
from tests.loadtests.reach import KEY
from tests.service.http.ui.chromium import chromium

if not find_spec("locust"):  # importing it would change sockets and threads of all tests
    pytest.skip("Locust is not installed", allow_module_level=True)
ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "locust", "-f", str(ROOT / "loadtests/locustfile.py")]


def locust(folder, *arguments, **environment):
    """Run it in a folder that has nothing of ours. Returns what it did, and requests and failures by name."""
    report = folder / "report.json"
    headless = [
        "--headless",
        "--users",
        "8",
        "--spawn-rate",
        "8",
        "--run-time",
        "2s",
        "--json-file",
        str(report.with_suffix("")),
    ]
    done = subprocess.run(
        [*COMMAND, *headless, *map(str, arguments)],
        check=False,
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert "Traceback" not in done.stderr
    entries = json.loads(report.read_text()) if report.exists() else []
    return done, {entry["name"]: (entry["num_requests"], entry["num_failures"]) for entry in entries}


def test_users_ask_everything(server, tmp_path):
    done, counts = locust(tmp_path, "--host", server.url, "--rubbish", "0.3")
    assert done.returncode == 0, done.stderr
    assert all(counts[path][0] > 0 for path in ("/v1/classify", "/v1/detect", "/v1/segment"))
    assert any(name.startswith("rubbish") for name in counts)
    assert not any(failures for _, failures in counts.values())


def test_another_host_behind_tls_a_prefix_and_a_key(far, tmp_path):
    options = ["--remote", "--ca-file", far.authority]
    done, counts = locust(tmp_path, "--host", far.url, *options, "--html", "report.html", ZOOSERVE_API_KEY=KEY)
    assert done.returncode == 0, done.stderr
    asked = {name for name in counts if name.startswith("/v1")}
    assert asked == {"/v1/classify", "/v1/detect"}  # it cannot segment
    assert not any(failures for _, failures in counts.values())
    assert KEY not in (tmp_path / "report.html").read_text() + done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["--tags", "detect"], {"/v1/detect"}),
        (["--exclude-tags", "rubbish", "segment"], {"/v1/classify", "/v1/detect"}),
        (["--model", "lenet5", "--rubbish", "0"], {"/v1/classify"}),
    ],
)
def test_what_is_asked_can_be_chosen(server, tmp_path, arguments, asked):
    done, counts = locust(tmp_path, "--host", server.url, *arguments)
    assert done.returncode == 0, done.stderr
    assert set(counts) == asked


def test_time_to_think(server, tmp_path):
    arguments = ["--model", "lenet5", "--rubbish", "0"]
    _, quick = locust(tmp_path, "--host", server.url, *arguments)
    _, slow = locust(tmp_path, "--host", server.url, *arguments, "--think-time", "1")
    assert 8 <= slow["/v1/classify"][0] <= 24 < quick["/v1/classify"][0]  # 8 users, 2 seconds


@pytest.mark.parametrize(
    ("shape", "numbers"),
    [("ramp", ["to 1 users", "to 4 users", "to 8 users"]), ("spike", ["to 1 users", "to 8 users"])],
)
def test_shapes(server, tmp_path, shape, numbers):
    arguments = ["--model", "lenet5", "--shape", shape, "--run-time", "10s", "--think-time", "0.1"]
    done, counts = locust(tmp_path, "--host", server.url, *arguments)
    assert done.returncode == 0, done.stderr
    assert all(f"Shape test updating {number}" in done.stderr for number in numbers)
    assert counts["/v1/classify"][0] > 10


def test_several_processes(server, tmp_path):
    """The key and the other options reach those that send."""
    # Those that send tell their counts every three seconds.
    arguments = ["--processes", "2", "--tags", "classify", "--run-time", "4s"]
    done, counts = locust(tmp_path, "--host", server.url, *arguments)
    assert done.returncode == 0, done.stderr
    assert set(counts) == {"/v1/classify"}
    assert counts["/v1/classify"][0] > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--host is missing: name the server to load, such as --host http://127.0.0.1:3000"),
        (["--host", "http://192.0.2.7"], "confirm with --remote"),
        (["--host", "http://127.0.0.1:9"], "is not reachable"),
        (["--host", "{url}", "--tags", "segments"], "nothing is left to do"),
        (["--host", "{url}", "--model", "yolo"], "no model yolo"),
        (["--host", "{url}", "--shape", "cube"], "steady"),
    ],
)
def test_what_is_wrong_is_said_before_any_load(server, tmp_path, arguments, words):
    done, counts = locust(tmp_path, *(word.format(url=server.url) for word in arguments))
    assert done.returncode == 2
    assert words in done.stderr
    assert not counts


@pytest.mark.parametrize("body", [b"ok", b'{"task": "classify", "predictions": []}'])
def test_wrong_answers_fail(tiny, tmp_path, body):
    tiny.body = body
    done, counts = locust(tmp_path, "--host", f"http://127.0.0.1:{tiny.address.port}")
    assert done.returncode == 1
    assert all(failures == requests > 0 for requests, failures in counts.values())


def test_a_server_that_goes_away_is_a_failure(tiny, tmp_path):
    tiny.models = tiny.models.replace(b'"m"', b'"break"')  # nothing of it is answered
    tiny.status, tiny.body = "503", b"later"
    done, counts = locust(tmp_path, "--host", f"http://127.0.0.1:{tiny.address.port}", "--rubbish", "0")
    assert done.returncode == 1
    assert counts["/v1/classify"][1] == counts["/v1/classify"][0] > 0


@contextlib.contextmanager
def page_of(folder, *arguments, **environment):
    """Locust with its page, in a browser."""
    port = free_port()
    command = [*COMMAND, "--web-host", "127.0.0.1", "--web-port", str(port), *arguments]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=os.environ | environment, stdout=log, stderr=log)
    try:
        for _ in range(100):
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"http://127.0.0.1:{port}/", trust_env=False).status_code == 200:
                    break
            time.sleep(0.1)
        with chromium() as browser:
            page = browser.new_page()
            page.goto(f"http://127.0.0.1:{port}/")
            yield page, f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)
    assert "Traceback" not in (folder / "log").read_text()


def test_the_page(far, tmp_path):
    options = ["--remote", "--ca-file", str(far.authority)]
    with page_of(tmp_path, *options, ZOOSERVE_API_KEY=KEY) as (page, url):
        assert KEY not in page.content()
        page.get_by_label("Number of users").fill("4")
        page.get_by_label("Ramp up").fill("4")
        host = page.get_by_label("Host", exact=False).first
        host.fill(far.url.replace("/vision", "/other"))
        page.get_by_role("button", name="Start").click()
        page.get_by_text("path prefix").first.wait_for(timeout=20_000)
        host.fill(far.url)
        page.get_by_role("button", name="Start").click()
        page.get_by_text("/v1/detect").first.wait_for(timeout=30_000)
        found = httpx.get(f"{url}/stats/requests", trust_env=False).json()
    assert found["user_count"] == 4
    assert {entry["name"] for entry in found["stats"]} >= {"/v1/classify", "/v1/detect"}
    assert found["fail_ratio"] == 0
