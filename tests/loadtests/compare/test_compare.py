"""The command: what it refuses, what it shows of an earlier run, and one short run from end to end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from loadtests.album import standard_photo
from loadtests.compare import sandbox
from loadtests.compare.__main__ import main
from loadtests.compare.bare import LOOPS, bare_loop
from loadtests.compare.trial import Bench

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--peers", "litserve,vllm"], "vllm: the peers are fastapi, bentoml"),
        (["--open-loop", "50%,soon"], "soon: expected requests per second, or a share"),
        (["--concurrency", "1,0"], "0: expected whole numbers"),
        (["--concurrency", "eight"], "eight: expected whole numbers"),
        (["--concurrency", ","], ",: expected whole numbers"),
        (["--rounds", "0"], "0 is not in the range"),
        (["--model", "nowhere"], "nowhere holds no model.onnx: run `zooserve export mobilenet_v2`"),
        (["--server-core", "4096"], "there is no core 4096"),
        (["--model", "a", "--model", "b"], "--model may be repeated with --machine only"),
        (["--machine", "--open-loop", "50%"], "closed loops only: leave out --open-loop"),
        (["--machine", "--no-scenarios"], "leave out --scenarios"),
        (["--machine", "--server-core", "0"], "leave out --server-core"),
        (["--machine", "--pixels", "both"], "run it with --pixels fast, then --pixels pillow"),
        (["--machine", "--model", "models/u2net/1"], "run `zooserve export u2net`, or give --model"),
    ],
)
def test_refused(models, arguments, message):
    given = [] if "--model" in arguments else ["--model", str(models / "mobilenet_v2" / "1")]
    result = CliRunner().invoke(main, [*given, *arguments])
    assert result.exit_code == 2
    assert message in result.output


def test_help_has_examples():
    output = CliRunner().invoke(main, ["--help"]).output
    assert "python -m loadtests.compare --peers none --rounds 1" in output
    assert "python -m loadtests.compare --machine --peers fastapi" in output


def test_the_photo_is_always_the_same():
    data = standard_photo()
    assert data == standard_photo()
    assert 90_000 < len(data) < 98_000


@pytest.fixture(scope="module")
def answers(models):
    data, model = standard_photo(), str(models / "mobilenet_v2" / "1")
    return {loop: bare_loop(loop, data, model, 0.05) for loop in LOOPS}


@pytest.mark.parametrize("loop", LOOPS)
def test_bare_loops(answers, loop):
    found = answers[loop]
    assert found.summary.succeeded == found.summary.requests > 0
    scores = [prediction["score"] for prediction in found.answer["predictions"]]
    assert len(scores) == 5
    assert scores == sorted(scores, reverse=True)
    assert found.answer["predictions"][0]["class_id"] == answers["pillow"].answer["predictions"][0]["class_id"]


def test_a_comparison_that_measures_nothing_fails(models, tmp_path, monkeypatch):
    def ended(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Bench, "trial", ended)
    monkeypatch.setattr(sandbox, "enter", lambda *_: True)
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None)
    arguments = ["--peers", "none", "--client-core", "0", "--model", str(models / "mobilenet_v2" / "1")]
    done = CliRunner().invoke(main, [*arguments, "--json", str(tmp_path / "out.json")])
    assert done.exit_code == 1
    assert "nothing was measured to its end" in done.output
    assert not (tmp_path / "out.json").exists()


def test_from_end_to_end(models, tmp_path):
    """One server, one short round: every figure is there, and the command shows it again from its JSON."""
    out, drawn = tmp_path / "out.json", tmp_path / "out.svg"
    command = [sys.executable, "-m", "loadtests.compare", "--peers", "none", "--rounds", "1", "--seconds", "0.5"]
    command += ["--warm-up", "0.2", "--bare-seconds", "0.3", "--concurrency", "1,4", "--open-loop", "20%"]
    command += ["--model", str(models / "mobilenet_v2" / "1"), "--json", str(out), "--plot", str(drawn)]
    command += ["--client-core", "0", "--no-scenarios"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (trial,) = json.loads(out.read_text())["details"]["trials"]
    assert trial["problem"] == "", done.stderr
    assert set(trial["closed"]) == {"1", "4"}
    assert all(load["requests"] == load["succeeded"] > 0 for load in trial["closed"].values())
    assert trial["open"]["20%"]["summary"]["succeeded"] > 0
    assert "goal p50 at concurrency 1 over the bare loop's" in done.stdout
    assert drawn.stat().st_size > 1000
    again = CliRunner().invoke(main, ["--show", str(out)])
    assert again.exit_code == 0
    assert [line.split("|")[1] for line in again.output.splitlines()[1:5]] == [
        line.split("|")[1] for line in done.stdout.splitlines()[1:5]
    ]


@pytest.mark.parametrize("name", ["compare", "scenarios"])
def test_the_goals_in_the_kept_results_are_those_of_their_figures(name):
    results = ROOT / "loadtests/results"
    shown = CliRunner().invoke(main, ["--show", str(results / f"{name}.json")])
    kept = (results / f"{name}.md").read_text()
    assert shown.exit_code == 0, shown.output
    goals = [line for line in kept.splitlines() if line.startswith("goal ")]
    assert goals
    assert set(goals) <= set(shown.output.splitlines())


@pytest.mark.parametrize(("condition", "code"), [("*8 clients:p99>20ms", 3), ("*8 clients:p99>2s", 0)])
def test_conditions_on_kept_results(condition, code):
    path = ROOT / "loadtests/results/scenarios.json"
    assert CliRunner().invoke(main, ["--show", str(path), "--fail-if", condition]).exit_code == code
