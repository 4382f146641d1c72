"""`python -m loadtests.soak` on the running service, and what it says of wrong calls."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.loadtests.reach import KEY

ROOT = Path(__file__).parents[3]


def soak(*arguments, **environment):
    command = [sys.executable, "-m", "loadtests.soak", *map(str, arguments)]
    return subprocess.run(
        command, check=False, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=120
    )


def test_a_short_soak(server, tmp_path):
    out, plot = tmp_path / "soak.json", tmp_path / "soak.png"
    done = soak(
        "--url", server.url, "--pid", server.process.pid, "--minutes", 0.12, "--period", 2, "--clients", 4,
        "--rubbish", 0.1, "--hang-ups", 0.05, "--json", out, "--plot", plot,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no error: 0 errors" in done.stdout
    assert done.stdout.count("not judged") == 2
    report = json.loads(out.read_text())
    results = report["details"]
    assert report["target"]["task"] == "classify, detect, segment"
    (measured,) = report["measurements"]
    assert (measured["errors"], len(measured["windows"])) == (0, 3)
    assert measured["p99_ms"] >= measured["p50_ms"] > 0
    assert [record["end"] for record in results["records"]] == [2.0, 4.0, 6.0]
    assert all(record["resident_mb"] > 100 and record["processes"] >= 1 for record in results["records"])
    assert all(record["queue_depth"] is not None and record["p99"] > 0 for record in results["records"])
    assert sum(record["refused"] for record in results["records"]) > 0
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_another_host_behind_tls_a_prefix_and_a_key(far, tmp_path):
    out = tmp_path / "soak.json"
    done = soak(
        "--url", far.url, *far.options, "--minutes", 0.1, "--period", 2, "--rubbish", 0.2, "--json", out,
        ZOOSERVE_API_KEY=KEY,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no error: 0 errors" in done.stdout
    report = json.loads(out.read_text())
    assert report["target"]["task"] == "classify, detect"
    assert KEY not in out.read_text()
    assert all(record["resident_mb"] > 100 and record["processes"] == 1 for record in report["details"]["records"])


def test_metrics_behind_tls_of_a_private_authority(far, tmp_path):
    out = tmp_path / "soak.json"
    done = soak(
        "--url", far.url, *far.options, "--minutes", 0.05, "--period", 1, "--metrics-url", f"{far.direct}/metrics",
        "--json", out, ZOOSERVE_API_KEY=KEY,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    records = json.loads(out.read_text())["details"]["records"]
    assert all(record["resident_mb"] > 100 for record in records)


def test_a_task_alone_and_a_condition(server):
    done = soak("--url", server.url, "--task", "detect", "--minutes", 0.05, "--rubbish", 0, "--fail-if", "rate>0.1/s")
    assert done.returncode == 3
    assert "failed: soak: rate" in done.stderr


def test_errors_make_it_fail(tiny):
    tiny.body = b'{"predictions": []}'
    done = soak("--url", f"http://127.0.0.1:{tiny.address.port}", "--minutes", 0.05, "--rubbish", 0.5)
    assert done.returncode == 1
    assert "rubbish" in done.stdout
    assert "MISSED" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--url", "http://127.0.0.1:9"], "refused"),
        (["--url", "http://10.0.0.1:3000"], "--remote"),
        (["--pid", "1"], "--url"),
        (["--metrics-url", "http://127.0.0.1:1/metrics"], "--url"),
        (["--models", "no-such-folder"], "no-such-folder"),
        (["--plot", "soak.doc"], ".svg"),
        (["--minutes", 0.05, "--json", "/dev/null/soak.json"], "cannot be written"),
    ],
)
def test_what_is_wrong_is_said(arguments, words):
    done = soak(*arguments)
    assert done.returncode in (1, 2)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
