"""Triton's load generator, where it is installed (`pip install perf-analyzer`) and runs: it wants glibc 2.38."""

import base64
import json
import re
import shutil
import struct
import subprocess

import pytest

pytestmark = pytest.mark.skipif(shutil.which("perf_analyzer") is None, reason="perf_analyzer is not installed")


@pytest.fixture
def analyse(oip):
    """Run it for a moment against a model; what it printed."""

    def run(model: str, *arguments: str) -> str:
        address = oip.url.removeprefix("http://")
        brief = ["--request-count", "40", "--concurrency-range", "4"]
        command = ["perf_analyzer", "-u", address, "-i", "http", "-m", model, *brief, *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
        if "GLIBC" in done.stderr:
            pytest.skip("perf_analyzer needs a later glibc than this system's")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.mark.parametrize(("model", "shape"), [("gru", "x:20,8"), ("style", "x:3,32,32")])
def test_perf_analyzer_measures_generated_tensors(analyse, model, shape):
    said = analyse(model, "--shape", shape, "-b", "2")
    assert int(re.search(r"Successful request count: (\d+)", said)[1]) >= 40
    assert re.search(r"Throughput: [1-9][\d.]* infer/sec", said)
    assert "compute infer" in said, "it has read the statistics"


def test_perf_analyzer_measures_encoded_images(analyse, coffee, tmp_path):
    packed = base64.b64encode(struct.pack("<I", len(coffee)) + coffee).decode()
    data = tmp_path / "image.json"
    data.write_text(json.dumps({"data": [{"image": {"b64": packed}}]}))
    said = analyse("mobilenet_v2", "--input-data", str(data))
    assert int(re.search(r"Successful request count: (\d+)", said)[1]) >= 40
