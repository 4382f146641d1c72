"""The search: over services of any capacity, steady ones and those that now and then fail."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.loadgen.certify import certify, highest
from loadtests.loadgen.summary import Summary
from loadtests.loadgen.trial import Spec, Trial


@given(st.floats(0.02, 100.0), st.floats(0.5, 1e4), st.floats(0.01, 0.5))
def test_highest_is_found_to_the_resolution(share, guess, resolution):
    capacity = share * guess
    asked = []
    rate = highest(lambda rate: asked.append(rate) or rate <= capacity, guess, resolution)
    assert rate <= capacity < rate * (1 + resolution) * (1 + 1e-9)
    assert len(asked) < 50


def test_no_rate_passes():
    assert highest(lambda rate: False, 100.0, 0.1) == 0.0


@pytest.mark.parametrize(("guess", "resolution"), [(0, 0.1), (-1, 0.1), (10, 0), (float("nan"), 0.1)])
def test_nonsense(guess, resolution):
    with pytest.raises(ValueError, match="above 0"):
        highest(lambda rate: True, guess, resolution)


def trial(spec, valid, kept=True, errors=0, answered=10):
    """What LoadGen and the senders would have said."""
    checks = {"Performance constraints": kept, "Early stopping": valid}
    summary = Summary("Server", valid and kept, checks, spec.target_qps, {"99.00": 1.0}, 1.0, 1.0, 1.0, [], "")
    return Trial(spec, summary, {"200": answered}, errors)


class Service:
    """Keeps its bound up to a capacity; the first tests of each rate may fail all the same."""

    def __init__(self, capacity, flukes=0, **said):
        self.capacity, self.flukes, self.said = capacity, flukes, said
        self.specs = []

    def conduct(self, spec):
        self.specs.append(spec)
        before = sum(s.target_qps == spec.target_qps for s in self.specs)
        kept = spec.target_qps <= self.capacity and before > self.flukes
        return trial(spec, **({"valid": spec.min_queries > 100, "kept": kept} | self.said))


SPEC = Spec("Server", 100.0, bound_ms=20, seconds=60, min_queries=1000)
SEARCH = {"search_seconds": 5.0, "resolution": 0.05, "tries": 2}


def test_a_certificate_is_proven_over_the_full_time():
    service = Service(capacity=137.0)
    found = certify(service.conduct, SPEC, **SEARCH)
    assert found.proof is found.trials[-1]
    assert 137 / 1.05 <= found.proof.spec.target_qps <= 137
    assert (found.proof.spec.seconds, found.proof.spec.min_queries) == (60, 1000)
    assert all((s.seconds, s.min_queries) == (5.0, 100) for s in service.specs[:-1])


def test_a_fluke_costs_nothing():
    assert certify(Service(137.0, flukes=1).conduct, SPEC, **SEARCH).proof.spec.target_qps > 130


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"errors": 1}, "no rate passed"),
        ({"kept": False}, "no rate passed"),
        ({"valid": False}, "no proof was valid"),
        ({"answered": 0}, "no longer answers"),
    ],
)
def test_no_certificate(said, problem):
    found = certify(Service(1e9 if "valid" not in said else 137.0, **said).conduct, SPEC, **SEARCH)
    assert found.proof is None
    assert problem in found.problem
    if "answered" in said:
        assert len(found.trials) == 1


def test_a_failed_proof_is_tried_at_lower_rates():
    service = Service(137.0, valid=False)
    certify(service.conduct, SPEC, **SEARCH)
    proofs = [s.target_qps for s in service.specs if s.seconds == 60]
    assert proofs == pytest.approx([proofs[0] * 0.95**n for n in range(4)])


def test_the_time_limit_ends_the_search():
    found = certify(Service(137.0).conduct, SPEC, **SEARCH, limit=0.0)
    assert found.proof is None
    assert "time limit" in found.problem
