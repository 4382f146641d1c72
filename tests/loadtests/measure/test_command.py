"""`python -m loadtests.measure` on the running service."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from loadtests.album import jpeg
from loadtests.measure.__main__ import main
from loadtests.report import SCHEMA_FILE, read_json
from tests.loadtests.reach import KEY

ROOT = Path(__file__).parents[3]
SHORT = ["--seconds", "0.5", "--warm-up", "0", "--windows", "3", "--stability", "100%"]


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("images") / "cup.jpg"
    path.write_bytes(jpeg("coffee").data)
    return str(path)


def test_on_the_service(server, image, tmp_path):
    out, table = tmp_path / "deep" / "out.json", tmp_path / "deep" / "out.md"
    arguments = ["--url", server.url, "--clients", "1,2", "--rate", "10", "--images", image, *SHORT]
    command = [sys.executable, "-m", "loadtests.measure", *arguments, "--json", out, "--markdown", table]
    environment = {"ZOOSERVE_API_KEY": "s3cret", "PATH": "/usr/bin"}
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == table.read_text().strip()
    assert "mobilenet_v2 1, classify, at http://127.0.0.1" in done.stdout
    assert "s3cret" not in out.read_text() + done.stdout + done.stderr
    Draft202012Validator(json.loads(SCHEMA_FILE.read_text())).validate(json.loads(out.read_text()))
    found = read_json(out)
    assert (found.tool, found.target.model, found.target.protocol) == ("measure", "mobilenet_v2", "http")
    assert found.settings["images"] == ["cup.jpg"]
    assert found.details["disturbances"].keys() == {"1 client", "2 clients", "10 per second"}
    assert [one.name for one in found.measurements] == ["1 client", "2 clients", "10 per second"]
    for one in found.measurements:
        assert (one.errors, len(one.windows)) == (0, 3)
        assert 0 < one.p50_ms <= one.p90_ms <= one.p99_ms <= one.max_ms
        assert f"{one.rate_per_s:.1f}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--fail-if", "p99>0.01ms"], 3, "failed: 1 client: p99"),
        (["--fail-if", "errors>0", "--fail-if", "rate<1/s"], 0, "| 1 client"),
        (["--fail-if", "2 clients:errors>0"], 3, "no measurement is called so; there are: 1 client"),
        (["--task", "detect"], 0, "yolov4_tiny 1, detect"),
        (["--model", "no_such_model"], 1, "no_such_model"),
    ],
)
def test_how_it_ends(server, image, arguments, code, words):
    done = CliRunner().invoke(main, ["--url", server.url, "--clients", "1", "--images", image, *SHORT, *arguments])
    assert done.exit_code == code, done.output
    assert words in done.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--clients", "0"], "expected whole numbers from 1"),
        (["--clients", "many"], "many: expected whole numbers"),
        (["--clients", ","], ",: expected whole numbers"),
        (["--rate", "inf"], "inf: expected numbers"),
        (["--rate", "nan"], "nan: expected numbers"),
        (["--rate", "0"], "expected numbers from 0.1"),
        (["--stability", "fast"], "expected a percentage, such as 5%"),
        (["--stability", "0%"], "expected a percentage"),
        (["--fail-if", "p99"], "such as 'p99>50ms'"),
        (["--url", "http://192.0.2.1:3000"], "--remote"),
        (["--url", "http://127.0.0.1:9"], "is not reachable"),
        (["--url", "grpc://127.0.0.1:9"], "is not reachable"),
        (["--images", "pyproject.toml"], "pyproject.toml is no image"),
        (["--images", "deploy"], "holds no photo"),
        (["--json", "pyproject.toml/out.json"], "cannot be written"),
        (["--markdown", "docs"], "docs is a folder"),
    ],
)
def test_what_is_wrong_is_said(arguments, words, monkeypatch):
    monkeypatch.chdir(ROOT)
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code in (1, 2)
    assert words in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize(("way", "protocol"), [("url", "https"), ("grpc", "grpcs")])
def test_a_server_with_tls_and_a_key_behind_a_prefix(far, image, tmp_path, way, protocol):
    out = tmp_path / "out.json"
    arguments = ["--url", getattr(far, way), *far.options, "--clients", "2", "--rate", "10", "--images", image]
    arguments += ["--model", "mobilenet_v2", *SHORT]
    refused = CliRunner().invoke(main, arguments)
    done = CliRunner().invoke(main, [*arguments, "--api-key", KEY, "--json", str(out)])
    assert refused.exit_code == 1
    assert "needs a key" in refused.output
    assert done.exit_code == 0, done.output
    assert KEY not in out.read_text() + done.output
    found = read_json(out)
    assert (found.target.protocol, found.target.model, found.target.version) == (protocol, "mobilenet_v2", "1")
    for one in found.measurements:
        assert one.errors == 0 < one.requests
        assert 0 < one.p50_ms <= one.p99_ms
