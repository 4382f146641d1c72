"""Sources and results in S3 and in Google's storage, against servers that imitate them, where those are installed.

pip install moto flask flask-cors pyyaml --constraint ...    # or anywhere else, and its folder on PYTHONPATH
pip install gcp-storage-emulator
"""

import importlib.util
import json
import subprocess
import sys
import time
from contextlib import suppress

import httpx
import pytest

from loadtests.compare.process import free_port

GOOGLE = ["gcp_storage_emulator", "start", "--in-memory", "--default-bucket=bucket", "--host=127.0.0.1"]
SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request, SignedHeaders=host"}


def started(command):
    """Start a server; return its address."""
    if importlib.util.find_spec(command[0].partition(".")[0]) is None:
        pytest.skip(f"{command[0]} is not installed, and too large (140 MB) for the extra `dev`")
    port = free_port()
    server = subprocess.Popen([sys.executable, "-m", *command, f"--port={port}"], stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    for _ in range(100):
        with suppress(httpx.TransportError):
            httpx.get(address)
            return server, address
        time.sleep(0.2)
    server.kill()
    raise AssertionError(f"{command[0]} does not answer")


@pytest.fixture
def s3(monkeypatch):
    server, address = started(["moto.server"])
    for name, value in (("ENDPOINT_URL", address), ("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "b")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    httpx.put(f"{address}/bucket", headers=SIGNED).raise_for_status()

    def put(name, data):
        httpx.put(f"{address}/bucket/{name}", content=data, headers=SIGNED).raise_for_status()

    yield "s3://bucket", put
    server.kill()
    server.wait()


@pytest.fixture
def gs(monkeypatch):
    server, address = started(GOOGLE)
    monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", address)

    def put(name, data):
        query = {"uploadType": "media", "name": name}
        httpx.post(
            f"{address}/upload/storage/v1/b/bucket/o",
            params=query,
            content=data,
            headers={"Content-Type": "image/png"},  # without one the server lists null, which ends pyarrow's process
        ).raise_for_status()

    yield "gs://anonymous@bucket", put
    server.kill()
    server.wait()


@pytest.mark.parametrize("store", ["s3", "gs"])
def test_images_and_results_of_an_object_store(request, score, photo, store):
    bucket, put = request.getfixturevalue(store)
    names = ["a.png", "below/b.png", "below/deeper/c.png", ".hidden/d.png", "notes.txt"]
    for name in names:
        put(f"photos/{name}", photo("coffee") + name.encode())
    cases = [("photos", 3, 3), ("photos", 3, 0), ("photos/*.png", 1, 1), ("photos/**/*.png", 3, 3)]
    for source, planned, new in cases:
        out = f"{bucket}/results-{planned}-{len(source)}"
        done = score(f"{bucket}/{source}", "--part-size", "1", "--json", out=out)
        assert done.code == 0, done.said
        manifest = json.loads(done.printed.splitlines()[-1])
        assert (manifest["images"], manifest["failed"], manifest["runs"][-1]["images"]) == (planned, 0, new), source
