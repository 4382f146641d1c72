"""Every goal on both sides of its bound."""

import pytest
from msgspec.structs import replace

from loadtests.compare.goals import check
from loadtests.compare.results import Figures, Row
from loadtests.compare.scenarios import Overload

LOADS = (1, 8, 32)


def figures(**given):
    return Figures(**{"rate": 100.0, "p50": 10.0, "p99": 20.0, "share": 0.95, "ratio": 1.05} | given)


def overload(**given):
    usual = {"capacity": 100.0, "offered": 200.0, "deadline": 500.0, "goodput": 95.0, "accepted": 950, "refused": 1050}
    usual |= {"accepted_p99": 400.0, "refused_p50": 1.0, "refused_p99": 5.0, "expired": 0, "unanswered": 0, "other": 0}
    return Overload(**usual | given)


def row(server="zooserve", pixels="fast", closed=None, burst=1.0, overloads=None, drift=0.0):
    closed = {load: figures(**(closed or {}).get(load, {})) for load in LOADS}
    return Row(server, pixels, closed, {}, burst, [overload()] if overloads is None else overloads, 100, 0, [], drift)


def peer(name="litserve", pixels="fast", **given):
    return row(name, pixels, {load: {"rate": 70.0, "p50": 12.0, "p99": 30.0} | given for load in LOADS})


def verdicts(*rows):
    return {goal.what: goal.verdict for goal in check(rows)}


def test_who_does_not_answer_all_is_not_the_best():
    """Latencies are of right answers: who refuses some answers the others the sooner."""

    def wrong(one):
        return replace(one, closed={load: replace(figures, errors=1) for load, figures in one.closed.items()})

    beside = ("p99 at concurrency 8 below", "throughput at concurrency 8 above", "throughput at concurrency 8 >= 1.3")
    for what in beside:
        assert next(v for w, v in verdicts(wrong(row()), peer()).items() if w.startswith(what)) == "missed"
    quick = wrong(peer("quick", rate=999.0, p50=1.0, p99=1.0))
    assert set(verdicts(row(), peer(), quick).values()) == {"met"}
    assert verdicts(row(), quick)["p99 at concurrency 8 below the best peer's"] == "not measured"


def test_all_met():
    goals = check([row(), peer()])
    assert {goal.verdict for goal in goals} == {"met"}
    assert len(goals) == 14
    assert str(goals[0]) == "goal p50 at concurrency 1 over the bare loop's <= 1.10: 1.050 - met"


@pytest.mark.parametrize(
    ("what", "given", "verdict"),
    [
        ("p50 at concurrency 1 over", {"closed": {1: {"ratio": 1.10}}}, "met"),
        ("p50 at concurrency 1 over", {"closed": {1: {"ratio": 1.11}}}, "missed"),
        ("throughput at concurrency 8 over", {"closed": {8: {"share": 0.92}}}, "met"),
        ("throughput at concurrency 8 over", {"closed": {8: {"share": 0.91}}}, "missed"),
        ("throughput at concurrency 32 over", {"closed": {32: {"share": 0.91}}}, "missed"),
        ("throughput at concurrency 8 above the best", {"closed": {8: {"rate": 70.0}}}, "missed"),
        ("throughput at concurrency 32 above the best", {"closed": {32: {"rate": 70.1}}}, "met"),
        ("throughput at concurrency 8 >= 1.3", {"closed": {8: {"rate": 90.0}}}, "missed"),
        ("throughput at concurrency 32 >= 1.3", {"closed": {32: {"rate": 91.0}}}, "met"),
        ("p50 at concurrency 1 below", {"closed": {1: {"p50": 12.0}}}, "missed"),
        ("p50 at concurrency 1 below", {"closed": {1: {"p50": 11.9}}}, "met"),
        ("p99 at concurrency 8 below", {"closed": {8: {"p99": 31.0}}}, "missed"),
        ("p99 at concurrency 32 below", {"closed": {32: {"p99": 31.0}}}, "missed"),
        ("p50 at concurrency 1 right after a burst", {"burst": 1.1}, "met"),
        ("p50 at concurrency 1 right after a burst", {"burst": 1.2}, "missed"),
        ("p50 at concurrency 1 right after a burst", {"burst": None}, "not measured"),
        ("goodput", {"overloads": [overload(goodput=89.0)]}, "missed"),
        ("goodput", {"overloads": [overload(goodput=g) for g in (50.0, 91.0, 92.0)]}, "met"),
        ("goodput", {"overloads": []}, "not measured"),
        ("p99 of the refusals", {"overloads": [overload(refused_p99=10.1)]}, "missed"),
        ("p99 of the refusals", {"overloads": [overload(refused_p99=None)]}, "not measured"),
        ("p99 of the accepted", {"overloads": [overload(accepted_p99=500.0)]}, "met"),
        ("p99 of the accepted", {"overloads": [overload(accepted_p99=501.0)]}, "missed"),
    ],
)
def test_bounds(what, given, verdict):
    (found,) = [v for goal, v in verdicts(row(**given), peer()).items() if goal.startswith(what)]
    assert found == verdict


def test_the_best_peer_counts_and_the_median_of_all():
    rows = [row(), peer("fastapi", rate=101.0), peer("ray", rate=40.0), peer("mlserver", rate=60.0)]
    found = verdicts(*rows)
    assert found["throughput at concurrency 8 above the best peer's"] == "missed"
    assert found["throughput at concurrency 8 >= 1.3 times the peers' median"] == "met"


def test_zooserve_is_judged_with_its_fast_pixels():
    slow = row(pixels="pillow", closed={1: {"ratio": 2.0}})
    assert check([slow, row(), peer()])[0].verdict == "met"
    assert check([slow, peer()])[0].verdict == "missed"


@pytest.mark.parametrize("rows", [[], [row()], [peer()]])
def test_what_was_not_measured(rows):
    goals = check(rows)
    assert len(goals) == 14
    against_peers = [goal for goal in goals if "peer" in goal.what]
    assert {goal.verdict for goal in against_peers} == {"not measured"}
    assert str(against_peers[0]).endswith("best peer's: not measured")


@pytest.mark.parametrize(
    ("ours", "theirs", "noisy"),
    [
        (0.10, 0.10, set()),
        (0.40, 0.0, {"alone", "beside"}),
        (0.0, 0.11, {"beside"}),
    ],
)
@pytest.mark.parametrize("good", [True, False])
def test_on_a_noisy_machine_goals_are_neither_met_nor_missed(ours, theirs, noisy, good):
    us = row(drift=ours, closed=None if good else {load: {"ratio": 2.0, "share": 0.5, "rate": 1.0} for load in LOADS})
    goals = check([us, peer(), replace(peer("ray"), drift=theirs)])
    for goal in goals:
        expected = ("beside" if "peer" in goal.what else "alone") in noisy
        assert (goal.verdict == "too noisy to judge") == expected, goal
        assert goal.verdict != "not measured"
    if ours > 0.1:
        words = "; the bare loops around zooserve differed by 40% - too noisy to judge"
        assert str(goals[0]).endswith(words)
    assert any(goal.verdict == "missed" for goal in goals) == (not good and "alone" not in noisy)


def test_what_was_not_measured_stays_so_on_a_noisy_machine():
    assert {goal.verdict for goal in check([row(drift=0.4)])} == {"too noisy to judge", "not measured"}
