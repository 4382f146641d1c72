"""The search: over servers of any capacity, steady and noisy ones, on quiet and disturbed machines."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.disturbance import Disturbance
from loadtests.loadgen.capacity import Search, find_capacity
from loadtests.loadgen.spec import Spec
from loadtests.loadgen.summary import Summary
from loadtests.loadgen.trial import Trial

SPEC = Spec("Server", 100.0, bound_ms=100, seconds=60, min_queries=1000)
QUIET, LOUD = Disturbance(0.01, 0.0, 0.01), Disturbance(0.9, 0.0, 0.3)


class Server:
    """Keeps its bound up to a capacity. `spoil` says of a test's number whether it fails although it should not."""

    def __init__(self, capacity, spoil=lambda number: False, loud=lambda number: False, **said):
        self.capacity, self.spoil, self.loud, self.said = capacity, spoil, loud, said
        self.specs = []

    def conduct(self, spec):
        number = len(self.specs)
        self.specs.append(spec)
        kept = spec.target_qps <= self.capacity and not self.spoil(number)
        p99 = (80.0 if spec.target_qps > 0.8 * self.capacity else 20.0) if kept else 300.0
        said = {"valid": True, "errors": 0, "answered": 10} | self.said
        checks = {"Performance constraints": kept, "Early stopping": said["valid"]}
        valid = kept and said["valid"]
        summary = Summary("Server", valid, checks, spec.target_qps, {"99.00": p99}, 1.0, 1.0, 1.0, [], "")
        disturbance = LOUD if self.loud(number) else QUIET
        return Trial(spec, summary, {"200": said["answered"]}, said["errors"], 0.1, disturbance)


@given(st.floats(0.05, 20.0), st.floats(1, 1e4), st.floats(0.01, 0.2))
def test_the_edge_is_found_to_the_resolution(share, guess, resolution):
    server = Server(share * guess)
    found = find_capacity(server.conduct, Spec("Server", guess), Search(resolution=resolution))
    assert not found.problem
    assert found.rate <= server.capacity < found.above <= found.rate * (1 + resolution) * (1 + 1e-9)
    assert len(server.specs) < 80


def test_full_tests_decide():
    server = Server(137.0)
    found = find_capacity(server.conduct, SPEC, Search(seconds=5))
    assert all(trial.valid and trial.spec.target_qps == found.rate for trial in found.proofs)
    assert len(found.proofs) == 2
    full = [spec for spec in server.specs if spec.seconds == 60]
    assert {spec.min_queries for spec in full} == {1000}
    assert {(s.seconds, s.min_queries) for s in server.specs if s not in full} == {(5.0, 300)}


def test_the_tests_of_a_rate_have_other_arrivals_the_same_in_every_run():
    first, second = Server(137.0), Server(137.0)
    for server in (first, second):
        find_capacity(server.conduct, SPEC)
    assert first.specs == second.specs
    assert {spec.arrivals for spec in first.specs} == {0, 1}


@pytest.mark.parametrize("seed", range(20))
def test_tests_that_fail_by_chance_do_not_exclude_higher_rates(seed):
    """A tenth of all tests fail although the rate is kept, on a machine that looks quiet."""
    chance = random.Random(seed)
    found = find_capacity(Server(187.0, spoil=lambda _: chance.random() < 0.1).conduct, SPEC)
    assert 187 / 1.1 < found.rate <= 187


def test_a_phase_of_trouble_at_the_start_is_overruled():
    """Every short test fails for a while: full ones find the way up again."""
    found = find_capacity(Server(187.0, spoil=lambda number: number < 8).conduct, SPEC)
    assert 187 / 1.03 / 1.03 < found.rate <= 187


def test_disturbed_tests_are_repeated_and_not_counted():
    def disturbed(number):
        return number % 3 == 1

    server = Server(187.0, spoil=disturbed, loud=disturbed)
    found = find_capacity(server.conduct, SPEC)
    assert 187 / 1.03 < found.rate <= 187
    assert all(trial.disturbance == QUIET for trial in found.proofs)


def test_a_machine_that_is_never_quiet_is_measured_all_the_same():
    server = Server(187.0, loud=lambda _: True)
    found = find_capacity(server.conduct, SPEC, Search(repeats=2))
    assert 187 / 1.03 < found.rate <= 187
    quiet = Server(187.0)
    find_capacity(quiet.conduct, SPEC, Search(repeats=2))
    assert len(quiet.specs) < len(server.specs) <= len(quiet.specs) + 4
    assert all(trial.disturbance == LOUD for trial in found.proofs)


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"errors": 1}, "no rate was kept"),
        ({"valid": False}, "short tests kept a rate that full ones did not"),
        ({"answered": 0}, "no longer answers"),
    ],
)
def test_no_capacity(said, problem):
    found = find_capacity(Server(137.0, **said).conduct, SPEC)
    assert found.rate is None
    assert problem in found.problem
    assert not found.proofs


def test_what_was_proven_stays_when_the_time_is_over():
    server = Server(187.0)
    full = find_capacity(server.conduct, SPEC)
    first = next(n for n, s in enumerate(server.specs) if s.seconds == 60)
    for limit in (0, first, first + 2):
        server = Server(187.0)
        found = find_capacity(server.conduct, SPEC, over=lambda limit=limit, server=server: len(server.specs) >= limit)
        assert "time was over" in found.problem
        assert (found.rate == full.rate) == (limit == first + 2)
