"""`python -m loadtests.loadgen` on the running service and on a small server."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.album import jpeg

ROOT = Path(__file__).parents[3]


def loadgen(*arguments):
    command = [sys.executable, "-m", "loadtests.loadgen", *map(str, arguments)]
    return subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_single_stream_on_the_service(server, tmp_path):
    (tmp_path / "cup.jpg").write_bytes(jpeg("coffee").data)
    out = tmp_path / "out.json"
    done = loadgen("singlestream", "--url", server.url, "--seconds", 1, "--photos", tmp_path, "--json", out)
    assert done.returncode == 0, done.stderr
    assert "LoadGen says VALID" in done.stdout
    assert "Result is : VALID" in done.stdout
    written = json.loads(out.read_text())
    results = written["details"]
    assert (results["model"], results["photos"]) == ("mobilenet_v2", ["cup.jpg"])
    assert results["trials"][0]["outcomes"].keys() == {"200"}
    assert written["versions"]["mlcommons-loadgen"]
    assert written["command"].startswith("python -m loadtests.loadgen singlestream --url")


def test_certify(tiny, tmp_path):
    tiny.body = b'{"model": "m", "version": "1", "predictions": []}'
    tiny.seconds = 0.003  # so at most 333 per second
    arguments = ["certify", "--url", f"http://127.0.0.1:{tiny.address.port}", "--bound-ms", 100, "--qps", 200]
    arguments += ["--search-seconds", 0.3, "--seconds", 1, "--min-queries", 500, "--resolution", 0.4]
    done = loadgen(*arguments, "--markdown", tmp_path / "out.md", "--logs", tmp_path / "logs")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "out.md").read_text()
    rate = float(text.partition("Certified: ")[2].partition(" ")[0])
    assert 50 < rate < 400
    assert "LoadGen says VALID" in text
    assert len(list((tmp_path / "logs").glob("*/mlperf_log_summary.txt"))) == text.count("| Server")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["server", "--url", "http://127.0.0.1:9"], "make serve"),
        (["server", "--url", "http://10.0.0.1:3000"], "loopback"),
        (["server", "--url", "https://127.0.0.1"], "expected http"),
        (["offline", "--photos", "tests"], "holds no photo"),
        (["certify", "--qps", "-1"], "--qps"),
    ],
)
def test_what_is_wrong_is_said(arguments, words):
    done = loadgen(*arguments)
    assert done.returncode in (1, 2)
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_model_that_is_not_there(server):
    done = loadgen("singlestream", "--url", server.url, "--model", "no-such-model")
    assert done.returncode == 1
    assert "404" in done.stderr
