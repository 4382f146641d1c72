"""`python -m loadtests.loadgen` on the running service, on one that is hard to reach, and on a small server."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.album import jpeg
from loadtests.report import read_json
from tests.loadtests.reach import KEY
from zoo import catalog

ROOT = Path(__file__).parents[3]
ANSWER = b'{"model": "m", "version": "1", "predictions": []}'


def loadgen(*arguments, **environment):
    command = [sys.executable, "-m", "loadtests.loadgen", *map(str, arguments)]
    return subprocess.run(
        command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=120, env=os.environ | environment
    )


def test_single_stream_on_the_service(server, tmp_path):
    (tmp_path / "cup.jpg").write_bytes(jpeg("coffee").data)
    out = tmp_path / "out.json"
    done = loadgen("singlestream", "--url", server.url, "--seconds", 1, "--images", tmp_path, "--json", out)
    assert done.returncode == 0, done.stderr
    assert "LoadGen says VALID." in done.stdout
    assert "Result is : VALID" in done.stdout
    written = read_json(out)
    assert (written.target.model, written.target.task) == ("mobilenet_v2", "classify")
    (found,) = written.measurements
    assert (found.name, found.clients, found.errors) == ("singlestream", 1, 0)
    assert found.p50_ms > 0
    assert written.details["trials"][0]["outcomes"].keys() == {"200"}
    assert written.details["trials"][0]["disturbance"]["stolen"] >= 0
    assert written.versions["mlcommons-loadgen"]
    assert written.command.startswith("python -m loadtests.loadgen singlestream --url")


@pytest.mark.parametrize(
    ("way", "arguments", "rows"),
    [
        ("url", ("singlestream",), "SingleStream"),
        ("url", ("server", "--qps", 20, "--min-queries", 20, "--bound-ms", 20_000), "Server"),
        ("url", ("offline", "--qps", 20, "--min-queries", 30), "Offline"),
        ("direct", ("multistream", "--images-per-query", 2, "--min-queries", 10), "MultiStream"),
        ("grpc", ("server", "--qps", 20, "--min-queries", 20, "--bound-ms", 20_000), "Server"),
        ("grpc", ("offline", "--qps", 20, "--min-queries", 30, "--option", "top_k=1"), "Offline"),
    ],
)
def test_a_server_with_tls_a_key_and_a_prefix(far, tmp_path, way, arguments, rows):
    out = tmp_path / "out.json"
    url = getattr(far, way)
    more = ["--url", url, *far.options, "--seconds", 0.5, "--json", out, "--model", "lenet5"]
    done = loadgen(*arguments, *more, ZOOSERVE_API_KEY=KEY)
    assert f"| {rows}" in done.stdout, done.stderr
    text = out.read_text()
    assert KEY not in text + done.stdout + done.stderr
    written = json.loads(text)
    assert written["target"]["url"] == url
    assert written["target"]["model"] == "lenet5"
    assert written["measurements"][0]["errors"] == 0, done.stdout
    assert written["measurements"][0]["requests"] >= 20


def test_a_key_as_an_option_is_not_written(far, tmp_path):
    out = tmp_path / "out.json"
    more = ["--url", far.direct, *far.options, "--api-key", KEY, "--json", out, "--seconds", 0.3]
    assert "LoadGen says" in loadgen("singlestream", *more).stdout
    assert KEY not in out.read_text()


def test_capacity(tiny, tmp_path):
    tiny.body = ANSWER
    tiny.seconds = 0.003  # so at most 333 per second
    arguments = ["capacity", "--url", f"http://127.0.0.1:{tiny.address.port}", "--bound-ms", 100, "--qps", 200]
    arguments += ["--search-seconds", 0.3, "--seconds", 1, "--min-queries", 500, "--resolution", 0.4, "--repeats", 0]
    out, logs = tmp_path / "out.json", tmp_path / "logs"
    done = loadgen(*arguments, "--markdown", tmp_path / "out.md", "--logs", logs, "--json", out, "--senders", 2)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "out.md").read_text()
    rate = float(text.partition("Capacity: ")[2].partition(" ")[0])
    assert 50 < rate < 400
    assert "LoadGen says VALID, and every answer was right." in text
    assert "per second it was not kept" in text
    assert "Disturbance during these tests" in text
    assert len(list(logs.glob("*/mlperf_log_summary.txt"))) == text.count("| Server")
    (found,) = read_json(out).measurements
    assert found.name == "capacity"
    assert found.offered_per_s is None  # it is what was found, not what was asked for
    assert found.rate_per_s == pytest.approx(rate, rel=0.3)
    assert len(found.windows) == 2


def test_user_conf(server, tmp_path):
    """Its keys count for the model, and options go before them."""
    conf = tmp_path / "user.conf"
    conf.write_text("lenet5.Server.target_qps = 40\n*.Server.target_latency = 5000\n*.*.min_query_count = 30\n")
    more = ["--url", server.url, "--model", "lenet5", "--user-conf", conf, "--seconds", 0.5]
    out = tmp_path / "out.json"
    done = loadgen("server", *more, "--json", out)
    spec = read_json(out).details["trials"][0]["spec"]
    assert (spec["target_qps"], spec["bound_ms"], spec["min_queries"]) == (40, 5000, 30), done.stderr
    loadgen("server", *more, "--qps", 30, "--json", out)
    assert read_json(out).details["trials"][0]["spec"]["target_qps"] == 30


def test_accuracy_feeds_eval(server, models, tmp_path):
    """Through the server and its log: the same measures as `zooserve eval` has by itself."""
    data = tmp_path / "data" / "281"
    data.mkdir(parents=True)
    for name in ("chelsea", "coffee", "astronaut"):
        (data / f"{name}.jpg").write_bytes(jpeg(name).data)
    (data / ".hidden.jpg").write_bytes(b"not an image")
    done = loadgen("accuracy", "--url", server.url, "--data", data.parent, "--logs", tmp_path / "logs")
    assert done.returncode == 0, done.stderr
    assert "3 of 3 images were answered by mobilenet_v2" in done.stdout
    log = tmp_path / "logs" / "mlperf_log_accuracy.json"
    assert f"zooserve eval mobilenet_v2 {data.parent} --answers {log}" in done.stdout
    zooserve = [str(Path(sys.executable).with_name("zooserve")), "eval", "mobilenet_v2", str(data.parent), "--json"]
    scores = []
    for more in ([], ["--answers", str(log)]):
        told = subprocess.run([*zooserve, "--models", str(models), *more], cwd=ROOT, capture_output=True, check=True)
        scores.append(json.loads(told.stdout)["scores"])
    assert scores[0] == scores[1]


def test_accuracy_names_what_was_not_answered(server, tmp_path):
    (tmp_path / "good.png").write_bytes(catalog.sample("coffee").read_bytes())
    (tmp_path / "good2.png").write_bytes(catalog.sample("coffee").read_bytes())
    (tmp_path / "zzz.png").write_bytes(b"not an image")
    done = loadgen("accuracy", "--url", server.url, "--data", tmp_path, "--logs", tmp_path / "logs")
    assert done.returncode == 1
    assert "2 of 3 images" in done.stdout
    assert "not answered: 1 x 4" in done.stderr


def test_fail_if(tiny):
    tiny.body = ANSWER
    url = f"http://127.0.0.1:{tiny.address.port}"
    done = loadgen("singlestream", "--url", url, "--seconds", 0.3, "--fail-if", "p99>0ms")
    assert done.returncode == 3
    assert "fails if p99>0ms" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["server", "--url", "http://127.0.0.1:9"], "not reachable"),
        (["server", "--url", "http://10.0.0.1:3000"], "--remote"),
        (["server", "--url", "http://127.0.0.1:3000", "--ca-file", "no-such-file"], "--ca-file"),
        (["offline", "--photos", "tests"], "holds no photo"),
        (["capacity", "--qps", "-1"], "--qps"),
        (["server", "--option", "top_k"], "NAME=VALUE"),
        (["server", "--user-conf", "README.md"], "README.md, line 3"),
        (["accuracy", "--data", "tests"], "--logs"),
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
    assert "the server has no model no-such-model; it has" in done.stderr


def test_without_loadgen():
    """Help works, and a command says how to install it before it looks for the server."""
    code = "import sys; sys.modules['mlperf_loadgen'] = None; from loadtests.loadgen.__main__ import main; main()"
    for arguments, returncode, words in (
        (["server", "--help"], 0, ""),
        (["server", "--url", "http://127.0.0.1:9"], 1, "pip install -e '.[loadtests]'"),
    ):
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == returncode
        assert words in done.stderr
        assert "Traceback" not in done.stderr
