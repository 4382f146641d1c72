"""Locust as it is called on the command line, without its page."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def locust(url, report, *arguments):
    command = [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", "--host", url, "--headless"]
    command += ["--users", "12", "--spawn-rate", "12", "--run-time", "6s", "--json-file", str(report), *arguments]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=90)
    return done, json.loads(report.with_suffix(".json").read_text())


def test_users_of_all_kinds_are_answered(server, tmp_path):
    done, entries = locust(server.url, tmp_path / "report")
    assert done.returncode == 0, done.stderr
    counts = {entry["name"]: entry["num_requests"] for entry in entries}
    assert all(counts[path] > 0 for path in ("/v1/classify", "/v1/detect", "/v1/segment"))
    assert sum(entry["num_failures"] for entry in entries) == 0
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("body", [b"ok", b'{"task": "classify", "predictions": []}'])
def test_wrong_answers_fail(tiny, tmp_path, body):
    tiny.body = body
    done, entries = locust(f"http://127.0.0.1:{tiny.address.port}", tmp_path / "report", "--run-time", "3s")
    assert done.returncode == 1
    assert all(entry["num_failures"] == entry["num_requests"] > 0 for entry in entries)
