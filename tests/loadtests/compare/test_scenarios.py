"""What an overload is counted as, and what the scenarios send."""

import pytest

from loadtests.client import Load, Sample
from loadtests.compare.scenarios import BURST, burst, judge, overload


def test_judge():
    samples = [
        *(Sample(0, n / 10, 0.1, 200) for n in range(8)),
        Sample(0, 0.8, 0.6, 200),  # too late to be of use
        *(Sample(0, n / 10, 0.002, 429) for n in range(4)),
        Sample(0, 0.9, 0.004, 503),
        Sample(0, 0.9, 0.5, 504),
        Sample(0, 0.9, 2.0, 0, "timeout"),
        Sample(0, 0.9, 0.1, 500),
    ]
    found = judge(Load(samples, 1.0), capacity=8.0, deadline=500)
    assert found.goodput == pytest.approx(8.0)
    assert (found.accepted, found.refused, found.expired, found.unanswered, found.other) == (9, 5, 1, 1, 1)
    assert found.accepted_p99 == pytest.approx(600)
    assert (found.refused_p50, found.refused_p99) == pytest.approx((2, 4))
    assert found.offered == 17


def test_burst(tiny):
    found = burst(tiny.address, tiny.get("/wait/0.005"), timeout=10)
    assert found.answered == BURST == 64
    assert tiny.paths["/wait/0.005"] == 64 + 200
    assert tiny.most_at_once == 64
    assert found.ratio == pytest.approx(found.after / found.before)


def test_burst_without_answers(tiny):
    assert burst(tiny.address, tiny.get("/status/500"), timeout=10) is None


def test_overload_offers_twice_the_capacity(tiny):
    found = overload(tiny.address, tiny.get("/ok"), capacity=100, seconds=1.0, deadline=100)
    assert found.offered == pytest.approx(200, rel=0.25)
    assert found.accepted == tiny.paths["/ok"]
