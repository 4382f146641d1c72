"""The whole machine: which bare loops run, what is compared with what, the tables and the goals."""

import json
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
from click.testing import CliRunner

from loadtests.client import Load, Sample
from loadtests.compare.__main__ import main
from loadtests.compare.goals import check_machine
from loadtests.compare.machine import ALONE, MODELS, Sweep, Task, best, default_models, estimate, run_machine, ways
from loadtests.compare.results import CELLS, measurements, rows
from loadtests.compare.servers import SERVERS
from loadtests.compare.tables import machine_tables, panels
from loadtests.compare.trial import Bench, Plan, Trial
from loadtests.report import read_json
from loadtests.stats import summarise

ROOT = Path(__file__).parents[3]


def load(milliseconds, count=20):
    """Answers that took so long each."""
    seconds = milliseconds / 1000
    return summarise(Load([Sample(0, n * seconds, seconds, 200) for n in range(count)], count * seconds))


@pytest.mark.parametrize(
    ("cores", "expected"),
    [
        (1, ["1 thread"]),
        (2, ["1 thread", "2 threads", "2 threads, spinning"]),
        (6, ["1 thread", *(f"{n} threads{spin}" for n in (2, 4, 6) for spin in ("", ", spinning"))]),
    ],
)
def test_ways(cores, expected):
    pairs = ["2 loops, 1 thread each", "2 loops, default threads, spinning each"]
    assert [str(way) for way in ways(cores)] == [*expected, *pairs]


def test_the_best_loop_is_the_quickest():
    assert best({"a": load(10), "b": load(8), "c": load(9)}) == "b"


def test_default_models(tmp_path):
    for name in (*MODELS, ALONE[0]):
        (tmp_path / name / "1").mkdir(parents=True)
    with_peers, alone = default_models(tmp_path)
    assert [folder.parent.name for folder in with_peers] == list(MODELS)
    assert [folder.parent.name for folder in alone] == [ALONE[0]]


class FakeBench(Bench):
    """Measures nothing: bare loops take 10 ms alone and 20 ms side by side, servers as `took` says by their name."""

    took: ClassVar = {"zooserve": 10.5, "fastapi": 12.0}
    asked: ClassVar[list[tuple[str, ...]]] = []

    def bare(self, loop, seconds=None, *options):
        from loadtests.compare.bare import BareLoop

        self.asked.append((self.model.parent.name, loop, *options))
        slow = "--copies=2" in options
        return BareLoop(load((20 if slow else 10) + ("--threads=1" not in options)), {"predictions": [loop]})

    def serve(self, trial, server, answer):
        assert answer == {"predictions": [server.bare_loop(trial.pixels)]}
        self.asked.append((self.model.parent.name, server.name))
        trial.closed = {str(n): load(n * self.took[server.name]) for n in self.plan.concurrency}


@pytest.fixture
def bench(tmp_path):
    FakeBench.asked = []
    plan = Plan(rounds=2, concurrency=(1, 2, 8, 32), server_cores=(0, 1), threads=0)
    return FakeBench(plan, tmp_path, tmp_path / "u2netp" / "1", tmp_path, tmp_path, 1, lambda _: None)


def servers(*names):
    return [(SERVERS[name], "fast") for name in names]


def test_rounds(bench):
    trials, sweeps = run_machine([Task(bench, servers("zooserve", "fastapi"))])
    assert [asked[1] for asked in bench.asked if len(asked) == 2] == [
        "zooserve",  # a bare loop for the answer
        "zooserve",
        "fast",  # and one for the peers'
        "fastapi",
        "fastapi",
        "zooserve",
    ]
    assert len(sweeps) == 4
    assert all(len(sweep.alone) == 3 and len(sweep.pairs) == 2 for sweep in sweeps)
    assert {trial.bare_loop for trial in trials} == {"1 thread"}
    found = {row.server: row for row in rows(trials)}
    assert found["zooserve"].closed[1].ratio == pytest.approx(1.05)
    assert found["zooserve"].closed[2].ratio == pytest.approx(21 / 20)
    assert found["fastapi"].closed[1].ratio == pytest.approx(1.2)
    assert found["zooserve"].drift == 0


def test_the_sweeps_of_a_round_lie_around_zooserve(bench):
    run_machine([Task(bench, servers("fastapi", "zooserve"))])
    names = [asked[1] if len(asked) == 2 else "sweep" for asked in bench.asked]
    at = len(names) - 1 - names[::-1].index("zooserve")
    assert names[at - 1] == names[at + 1] == "sweep"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), subprocess.CalledProcessError(1, "bare")])
def test_what_was_complete_counts_when_it_is_stopped(bench, monkeypatch, error):
    def serve(self, trial, server, answer):
        if (server.name, trial.round) == ("fastapi", 2):
            raise error

    monkeypatch.setattr(FakeBench, "serve", serve)
    trials, sweeps = run_machine([Task(bench, servers("zooserve", "fastapi"))])
    assert [(trial.server, trial.round) for trial in trials] == [("zooserve", 1), ("fastapi", 1)]
    assert len(sweeps) == 2


def test_estimate(bench):
    task = Task(bench, servers("zooserve", "fastapi"))
    assert estimate(bench.plan, [task, task]) == pytest.approx(2 * estimate(bench.plan, [task]))
    assert 100 < estimate(bench.plan, [task]) < 1000


def results(times, models=("mobilenet_v2",), bare=(10.0, 10.0), pairs=(20.0, 20.0)):
    """Trials and sweeps in which each server takes so many ms for every client."""
    sweeps = [
        Sweep(model, 1, {"1 thread": load(one), "2 threads": load(one + 5)}, {"2 loops": load(two)})
        for model in models
        for one, two in zip(bare, pairs, strict=True)
    ]
    trials = [
        Trial(
            server,
            "fast",
            1,
            "1 thread",
            load(bare[0]),
            load(bare[1]),
            closed={str(n): load(n * ms) for n in (1, 2, 8, 32)},
            pairs=[load(two) for two in pairs],
            model=model,
        )
        for model in models
        for server, ms in times.items()
    ]
    return trials, sweeps


def verdicts(trials, model="mobilenet_v2"):
    return [goal.verdict for goal in check_machine(rows(trials)) if goal.what.startswith(f"{model}:")]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"times": {"zooserve": 10.7, "fastapi": 12}}, ["met", "met", "met"]),
        ({"times": {"zooserve": 10.9, "fastapi": 12}}, ["missed", "met", "met"]),
        ({"times": {"zooserve": 11.1, "fastapi": 12}}, ["missed", "missed", "met"]),
        ({"times": {"zooserve": 10.7, "fastapi": 10.6}}, ["met", "met", "missed"]),
        ({"times": {"zooserve": 10.7}}, ["met", "met", "not measured"]),
        ({"times": {"fastapi": 10.7}}, ["not measured"] * 3),
        ({"times": {"zooserve": 10.7, "fastapi": 12}, "bare": (10, 11)}, ["too noisy to judge"] * 3),
        ({"times": {"zooserve": 10.7, "fastapi": 12}, "pairs": (20, 22)}, ["too noisy to judge"] * 3),
    ],
)
def test_goals(given, expected):
    assert verdicts(results(**given)[0]) == expected


def test_goals_of_models_that_were_not_measured():
    trials, _ = results({"zooserve": 10.7}, models=("deeplabv3_mobilenet_v2",))
    assert verdicts(trials, "u2netp") == ["not measured"] * 3
    assert verdicts(trials, "deeplabv3_mobilenet_v2") == ["met", "met"]
    assert verdicts(trials, "yolov8n") == []


def test_a_lost_cell_is_named():
    trials, _ = results({"zooserve": 10.0, "fastapi": 11.0})
    trials[1].closed["8"] = load(70)
    (goal,) = [
        goal for goal in check_machine(rows(trials)) if goal.what == "mobilenet_v2: the best server in every cell"
    ]
    assert goal.found == (
        "4 of 6; not p99 ms, 8 clients: 80.0, fastapi 70.0; not images/s, 8 clients: 12.5, fastapi 14.3"
    )
    assert goal.verdict == "missed"


def test_tables():
    trials, sweeps = results({"zooserve": 10.0, "fastapi": 11.0}, models=("mobilenet_v2", "u2netp"))
    first, second = machine_tables(rows(trials), sweeps).split("\n\nu2netp\n\n")
    assert first.startswith("mobilenet_v2\n\n| server")
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in second.splitlines()]
    assert [line[0] for line in lines[2:]] == [
        "bare: 1 thread, best in 2 of 2",
        "bare: 2 threads",
        "bare: 2 loops, best in 2 of 2",
        "zooserve",
        "fastapi",
    ]
    assert len({len(line) for line in lines}) == 1
    assert [line[2] for line in lines[2:]] == ["10.0", "15.0", "-", "10.0*", "11.0"]
    assert [line[3] for line in lines[2:]] == ["-", "-", "20.0", "20.0*", "22.0"]
    assert all(cell.endswith("*") for cell in (lines[5][n] for n in (2, 3, 6, 7, 8, 9)))
    assert [panel.title for panel in panels(rows(trials))] == ["mobilenet_v2", "u2netp"]
    assert list(panels(rows(trials))[0].curves) == ["zooserve", "fastapi"]


def test_a_server_that_failed_has_no_figures_and_is_never_the_best():
    trials, sweeps = results({"zooserve": 10.0, "fastapi": 5.0})
    trials[1].closed, trials[1].problem = {}, "it died"
    found = rows(trials)
    assert all(cell.best(found).server == "zooserve" for cell in CELLS)
    assert "failed in 1 rounds" in machine_tables(found, sweeps)


def test_a_server_that_left_requests_unanswered_is_never_the_best():
    trials, sweeps = results({"zooserve": 10.0, "fastapi": 11.0})
    refused = [Sample(0, 0.0, 0.001, 429)] * 5
    trials[0].closed["8"] = summarise(Load([*(Sample(0, n, 0.08, 200) for n in range(5)), *refused], 0.5))
    (goal,) = [goal for goal in check_machine(rows(trials)) if goal.what.endswith("in every cell") and goal.found]
    assert goal.verdict == "missed"
    assert "4 of 6; not p99 ms, 8 clients: 80.0 with 5 errors, fastapi 88.0; not images/s, 8 clients" in goal.found
    assert "80.0!" in machine_tables(rows(trials), sweeps)
    trials[1].closed["8"] = trials[0].closed["8"]
    (goal,) = [goal for goal in check_machine(rows(trials)) if goal.what.endswith("in every cell") and goal.found]
    assert "nobody answered every request" in goal.found


def test_measurements_name_the_model_and_the_bare_loops():
    trials, sweeps = results({"zooserve": 10.0}, models=("u2netp",))
    assert [one.name for one in measurements(trials, sweeps)] == [
        "u2netp, zooserve, 1 client",
        *(f"u2netp, zooserve, {n} clients" for n in (2, 8, 32)),
        *(f"u2netp, bare: {way}" for way in ("1 thread", "2 threads", "2 loops")),
    ]


def test_from_end_to_end(models, tmp_path):
    """zooserve alone, one model, one very short round; the command shows it again from its JSON."""
    out = tmp_path / "out.json"
    command = [sys.executable, "-m", "loadtests.compare", "--machine", "--peers", "none", "--rounds", "1"]
    command += ["--seconds", "0.3", "--warm-up", "0.1", "--bare-seconds", "0.2", "--concurrency", "1,2"]
    command += ["--model", str(models / "mobilenet_v2" / "1"), "--json", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert "mobilenet_v2: about 1 minutes in all" in done.stderr
    report = read_json(out)
    (trial,) = report.details["trials"]
    assert trial["problem"] == "", done.stderr
    assert set(trial["closed"]) == {"1", "2"}
    assert len(report.details["sweeps"]) == 2
    assert (report.settings["threads"], report.settings["models"]) == (0, ["mobilenet_v2"])
    assert json.loads(out.read_text())["tool"] == "compare"
    again = CliRunner().invoke(main, ["--show", str(out)])
    assert again.exit_code == 0
    assert "goal mobilenet_v2: p50 of 1 client over the best bare loop's <= 1.08" in again.output
    assert [line.split(":")[0] for line in again.output.splitlines() if line.startswith("goal")] == [
        line.split(":")[0] for line in done.stdout.splitlines() if line.startswith("goal")
    ]
