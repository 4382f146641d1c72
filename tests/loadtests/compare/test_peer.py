"""The work of the comparison is zooserve's: bare loops and the FastAPI peer, really started, answer as it does."""

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import pytest

from loadtests.album import standard_photo
from loadtests.client import Request, fetch, run
from loadtests.compare.agreement import agree
from loadtests.compare.bare import bare_loop
from loadtests.compare.process import free_port
from loadtests.compare.servers import SERVERS
from loadtests.target import Target

TASKS = {"mobilenet_v2": "classify", "yolov4_tiny": "detect", "u2netp": "segment", "deeplabv3_mobilenet_v2": "segment"}
# zooserve's fast pixels are not quite Pillow's, which moves scores a little.
CLOSE = 10.0


@pytest.fixture(scope="module")
def photo():
    return standard_photo()


@contextmanager
def fastapi(folder, log, threads):
    """The peer's own program, in the environment of the tests, which has all that it needs."""
    peer, port = SERVERS["fastapi"], free_port()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "server.py"],
            cwd=peer.folder,
            env=os.environ | peer.environ(port, "pillow", folder, threads),
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + 60
        while True:
            with suppress(OSError):
                if run(fetch(Target.at("127.0.0.1", port), Request("GET", peer.ready))).status == 200:
                    break
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield Target.at("127.0.0.1", port)
    finally:
        process.terminate()
        process.wait(20)


def predictions(name, address, request):
    response = run(fetch(address, request, timeout=60))
    assert response.status == 200, response.body
    return SERVERS[name].predictions(json.loads(response.body))


@pytest.fixture(scope="module")
def ours(server, photo):
    """What zooserve answers, by model."""
    address = Target.at("127.0.0.1", int(server.url.rpartition(":")[2]))
    found = {}
    for model, task in TASKS.items():
        request = SERVERS["zooserve"].request(photo, task)
        path = f"{request.path}{'&' if '?' in request.path else '?'}model={model}"
        asked = Request(request.method, path, request.headers, request.body)
        found[model] = predictions("zooserve", address, asked)
    return found


@pytest.mark.parametrize(("model", "threads"), [("mobilenet_v2", 1), ("yolov4_tiny", 0), ("u2netp", 0)])
def test_fastapi_answers_as_zooserve_does(models, photo, ours, tmp_path, model, threads):
    with fastapi(models / model / "1", tmp_path / "log", threads) as address:
        given = predictions("fastapi", address, SERVERS["fastapi"].request(photo, TASKS[model]))
    assert given
    assert agree(given, ours[model], slack=CLOSE), (given, ours[model])


@pytest.mark.parametrize("model", TASKS)
def test_the_bare_loop_with_our_pixels_answers_the_same(models, photo, ours, model):
    found = bare_loop("zooserve", photo, str(models / model / "1"), 0.0)
    assert found.summary.requests == 0
    assert agree(found.answer["predictions"], ours[model])


@pytest.mark.parametrize("options", [{"threads": 2, "spin": False}, {"threads": 0}, {"threads": 1, "copies": 2}])
def test_bare_loops_with_threads_and_side_by_side(models, photo, options):
    folder = str(models / "mobilenet_v2" / "1")
    found = bare_loop("fast", photo, folder, 0.2, **options)
    assert found.summary.succeeded == found.summary.requests >= options.get("copies", 1)
    assert agree(found.answer["predictions"], bare_loop("fast", photo, folder, 0.0).answer["predictions"])
