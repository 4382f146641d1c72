"""Medians over rounds, and shares of the bare loops around each trial."""

import pytest

from loadtests.client import Load, Sample
from loadtests.compare.results import bare_rows, drift, measurements, rows
from loadtests.compare.scenarios import Burst
from loadtests.compare.tables import closed_table, open_table, panels, scenario_table
from loadtests.compare.trial import OpenLoop, Trial
from loadtests.stats import summarise


def load(rate, status=200):
    """One second of answers, each as late as the rate makes it."""
    return summarise(Load([Sample(0, n / rate, 1 / rate, status) for n in range(rate)], 1.0))


def trial(number, rate, before=100, after=100, server="zooserve", problem=""):
    closed = {"1": load(rate), "8": load(rate)} if rate else {}
    opened = {"50%": OpenLoop(50.0, load(50))} if rate else {}
    bare = None if after is None else load(after)
    return Trial(
        server, "fast", number, "fast", load(before), bare, 1.0, closed, opened, Burst(10, 12, 64), None, problem
    )


def test_medians():
    (row,) = rows([trial(1, 80), trial(2, 90), trial(3, 20)])
    assert row.closed[1].rate == pytest.approx(80)
    assert row.closed[8].p50 == pytest.approx(1000 / 80)
    assert row.closed[1].share == pytest.approx(0.8)
    assert row.closed[1].ratio == pytest.approx(100 / 80)
    assert row.open["50%"].rate == pytest.approx(50)
    assert row.burst == pytest.approx(1.2)
    assert (row.requests, row.errors, row.problems) == (2 * (80 + 90 + 20) + 150, 0, [])


def test_each_round_is_measured_by_its_own_bare_loops():
    (row,) = rows([trial(1, 80, before=100, after=60), trial(2, 40, before=50, after=None)])
    assert row.closed[1].share == pytest.approx((80 / 80 + 40 / 50) / 2)
    assert drift([trial(1, 80, before=100, after=60), trial(2, 40, after=None)]) == [pytest.approx(0.4)]
    assert row.drift == pytest.approx(0.4)


def test_the_drift_of_a_row_is_the_median_of_its_rounds():
    (row,) = rows([trial(1, 80, after=60), trial(2, 80, after=99), trial(3, 80, after=98)])
    assert row.drift == pytest.approx(0.02)
    assert rows([trial(1, 80, after=None)])[0].drift == 0


def test_measurements_have_a_window_for_each_round():
    trials = [trial(n, rate) for n, rate in enumerate((80, 81, 82, 0), 1)]
    found = {one.name: one for one in measurements([*trials, trial(1, 50, server="fastapi")])}
    assert list(found) == [
        f"{server} (fast), {load}"
        for server in ("zooserve", "fastapi")
        for load in ("1 client", "8 clients", "open loop 50%")
    ]
    one = found["zooserve (fast), 8 clients"]
    assert (one.clients, one.requests, one.errors, one.stable) == (8, 80 + 81 + 82, 0, True)
    assert one.rate_per_s == pytest.approx(81)
    assert one.p99_ms == pytest.approx(1000 / 81)
    assert [window.rate_per_s for window in one.windows] == pytest.approx([80, 81, 82])
    assert found["zooserve (fast), open loop 50%"].offered_per_s == 50
    assert found["fastapi (fast), 1 client"].stable is None  # one round alone


def test_a_round_that_failed_is_told_and_does_not_count():
    (row,) = rows([trial(1, 80), trial(2, 0, problem="it died")])
    assert row.closed[1].rate == pytest.approx(80)
    assert row.problems == ["round 2: it died"]


def test_a_server_that_answers_nothing_has_no_figures():
    broken = trial(1, 80)
    broken.closed = {"1": load(80, status=500)}
    (row,) = rows([broken])
    assert row.closed == {}
    assert row.errors == 80
    assert "80" in closed_table([row], [])


def test_bare_loops():
    (bare,) = bare_rows([trial(1, 80, before=100, after=60), trial(2, 80, before=80, after=None)])
    assert (bare.loop, bare.rate) == ("fast", pytest.approx(80))
    assert bare.p50 == pytest.approx(1000 / 80)


def test_tables_have_a_line_for_each():
    trials = [trial(1, 80), trial(1, 40, server="litserve"), trial(1, 0, server="ray", problem="no")]
    found = rows(trials)
    closed = closed_table(found, bare_rows(trials)).splitlines()
    assert [line.split("|")[1].strip() for line in closed[2:]] == ["bare loop `fast`", "zooserve", "litserve", "ray"]
    assert "12.50 / 12.5, 80" in closed[3]
    assert "0.80 / 0.80" in closed[3]
    assert "failed in 1 rounds" in closed[5]
    assert len(open_table(found).splitlines()) == 4
    assert len(scenario_table(found).splitlines()) == 5
    assert [list(panel.curves) for panel in panels(found)] == [["zooserve", "litserve"]] * 2
