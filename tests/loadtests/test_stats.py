"""Percentiles by their definition, and what a load's figures count."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.client import Load, Sample
from loadtests.stats import elapsed, median_of, percentile, summarise


@pytest.mark.parametrize(
    ("values", "q", "expected"),
    [
        ([], 50, None),
        ([7.0], 0, 7.0),
        ([7.0], 99, 7.0),
        ([3.0, 1.0, 2.0], 50, 2.0),
        ([4.0, 1.0, 3.0, 2.0], 50, 2.0),
        ([float(n) for n in range(1, 101)], 99, 99.0),
        ([float(n) for n in range(1, 101)], 99.5, 100.0),
        ([float(n) for n in range(1, 101)], 100, 100.0),
    ],
)
def test_percentile(values, q, expected):
    assert percentile(values, q) == expected


@given(st.lists(st.floats(0, 1e6), min_size=1), st.sampled_from([1, 50, 90, 99, 100]))
def test_percentile_is_the_smallest_value_that_enough_do_not_exceed(values, q):
    found = percentile(values, q)
    assert found in values
    assert 100 * sum(value <= found for value in values) >= q * len(values)
    assert 100 * sum(value < found for value in values) < q * len(values)


@pytest.mark.parametrize("q", [-1, 101])
def test_percentile_out_of_range(q):
    with pytest.raises(ValueError, match="0 to 100"):
        percentile([1.0], q)


def test_summary():
    samples = [
        Sample(0, 0.0, 0.010, 200),
        Sample(0, 0.5, 0.030, 200, late=0.002),
        Sample(0, 0.6, 0.020, 200),
        Sample(0, 0.7, 0.001, 429),
        Sample(0, 0.8, 2.0, 0, "timeout"),
        Sample(0, 0.9, 0.0, 0, "not sent"),
    ]
    found = summarise(Load(samples, 1.0))
    assert (found.requests, found.succeeded, found.errors) == (6, 3, 3)
    assert (found.p50, found.p90, found.p99, found.worst, found.mean) == pytest.approx((20, 30, 30, 30, 20))
    assert found.rate == 3.0  # the failures' waiting does not count
    assert found.statuses == {"200": 3, "429": 1}
    assert found.failures == {"timeout": 1, "not sent": 1}
    assert found.late_p99 == pytest.approx(2.0)


def test_a_rate_counts_the_time_until_the_last_answer():
    load = Load([Sample(0, 0.0, 0.1, 200), Sample(0, 0.9, 1.1, 200)], 1.0)
    assert elapsed(load) == pytest.approx(2.0)
    assert summarise(load).rate == pytest.approx(1.0)


def test_summary_of_nothing():
    found = summarise(Load([Sample(0, 0.0, 1.0, 0, "timeout")], 1.0))
    assert (found.rate, found.p50, found.p99, found.mean, found.worst) == (0.0, None, None, None, None)


@pytest.mark.parametrize(("values", "expected"), [([3, None, 1, 2], 2), ([1, 2], 1.5), ([None], None), ([], None)])
def test_median_of(values, expected):
    assert median_of(values, lambda value: value) == expected
