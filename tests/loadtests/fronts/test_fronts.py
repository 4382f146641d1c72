"""Figures are judged against their goals, and a short run has figures of the schema."""

import pytest
from click.testing import CliRunner

from loadtests.fronts import __main__ as command
from loadtests.fronts.__main__ import Outcome, goals
from loadtests.fronts.cost import Cost
from loadtests.fronts.kills import Kills, _silence
from loadtests.report import read_json

COST = Cost(1000, 0, 100.0, 20.0, 1.5, 0.03, 1.2, 10.0, 20.0)
KILLS = Kills(3, 1000, 4, 20, 0, 2, 0, (0.5, 0.6), (1.5, 2.0))


@pytest.mark.parametrize(
    ("outcome", "verdicts"),
    [
        (Outcome(light=COST), ["met"]),
        (Outcome(light=Cost(1000, 0, 100.0, 2.0, 1.6, 0.05, 1.2, 10.0, 20.0)), ["missed"]),
        (Outcome(engine=(0.05, 31.0)), ["missed"]),
        (Outcome(one=COST, light=COST, engine=(0.03, 31.0)), ["met", "met", "met", "met"]),
        (Outcome(handover_ms=(0.1, 0.6)), ["missed"]),
        (Outcome(connections=[30, 34]), ["met"]),
        (Outcome(connections=[4, 60]), ["missed"]),
        (Outcome(front_kills=KILLS), ["met", "met"]),
        (Outcome(engine_kills=KILLS, load_s=0.3), ["met", "met"]),
        (Outcome(engine_kills=KILLS, load_s=0.1), ["met", "missed"]),
        (Outcome(front_kills=Kills(3, 1000, 40, 0, 1, 30, 7, (2.0, 3.0), (2.0, 3.0))), ["missed", "missed"]),
        (Outcome(files=(200, 203)), ["met"]),
        (Outcome(files=(200, 220)), ["missed"]),
        (Outcome(latency_ms=[(10.0, 10.3), (11.0, 11.2)]), ["met"]),
    ],
)
def test_figures_are_judged(outcome, verdicts):
    assert [goal.verdict for goal in goals(outcome)] == verdicts


@pytest.mark.parametrize(
    ("good", "expected"), [([1.1, 1.2, 1.9, 2.5], 0.7), ([0.5, 2.5], 1.0), ([1.5], 0.5), ([1.01, 1.99], 0.98)]
)
def test_the_longest_silence_is_between_a_kill_and_the_next(good, expected):
    assert _silence(good, 1.0, 2.0) == pytest.approx(expected)


@pytest.mark.timeout(240)
def test_a_short_run(models, tmp_path):
    out = tmp_path / "out.json"
    arguments = ["--model", str(models / "lenet5" / "1"), "--only", "spread", "--only", "kills", "--seconds", "1"]
    arguments += ["--front-kills", "1", "--engine-kills", "1", "--json", str(out)]
    result = CliRunner().invoke(command.main, arguments)
    assert result.exit_code == 0, result.output
    details = read_json(out).details
    assert sum(details["connections"]) >= 64
    for kills in (details["front_kills"], details["engine_kills"]):
        assert kills["answered"] > 0
        assert kills["others"] == 0
