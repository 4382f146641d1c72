"""Percentiles by their definition, and what a load's figures count."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.client import Load, Sample
from loadtests.percentiles import percentile
from loadtests.report import Window
from loadtests.stats import (
    P99_NEEDS,
    elapsed,
    instability,
    measurement,
    median_of,
    medians,
    stable,
    summarise,
)


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


def steady(rate, milliseconds, seconds=1.0):
    """A load of equal latencies that come `rate` a second."""
    return Load([Sample(0, n / rate, milliseconds / 1000, 200) for n in range(int(rate * seconds))], seconds)


def test_measurement_of_loads_that_follow_each_other():
    failed = Load([*steady(100, 5).samples[:99], Sample(0, 0.99, 30.0, 0, "timeout")], 1.0)
    found = measurement("8 clients", [steady(100, 5), steady(300, 7), failed], clients=8, stability=0.05)
    assert (found.name, found.clients, found.offered_per_s) == ("8 clients", 8, None)
    assert (found.requests, found.errors, found.seconds) == (500, 1, pytest.approx(3.0, abs=0.01))
    assert found.rate_per_s == pytest.approx(499 / 3, rel=0.01)
    assert (found.p50_ms, found.p99_ms, found.max_ms) == pytest.approx((7, 7, 7))
    assert (found.statuses, found.failures) == ({"200": 499}, {"timeout": 1})
    assert [window.requests for window in found.windows] == [100, 300, 100]
    assert found.stable is False
    assert measurement("x", [steady(100, 5)] * 3, stability=0.05).stable is True
    assert measurement("x", [steady(100, 5)] * 3).stable is None


def a_window(rate=100.0, p50=10.0, p99=50.0, answers=100):
    return Window(answers / rate, answers, 0, rate, p50, p50, p99)


@pytest.mark.parametrize(
    ("windows", "within", "agree", "words"),
    [
        ([{}, {}, {}], 0.05, True, "p50 ±0.0 %, rate ±0.0 %"),
        ([{}, {}], 0.05, False, "2 of 3 windows"),
        ([], 0.05, False, "0 of 3 windows"),
        ([{"rate": 1.0}, {}, {}, {}], 0.05, True, "p50 ±0.0 %, rate ±0.0 %"),  # the last three count
        ([{}, {}, {}, {"rate": 1.0}], 0.05, False, "p50 ±0.0 %, rate ±98.5 %"),
        ([{"rate": 96.0}, {}, {"rate": 104.0}], 0.05, True, "p50 ±0.0 %, rate ±4.0 %"),
        ([{"rate": 94.0}, {}, {"rate": 106.0}], 0.05, False, "p50 ±0.0 %, rate ±6.0 %"),
        ([{"rate": 94.0}, {}, {"rate": 106.0}], 0.10, True, "p50 ±0.0 %, rate ±6.0 %"),
        ([{"p50": 8.0}, {}, {"p50": 12.0}], 0.05, False, "p50 ±20.0 %, rate ±0.0 %"),
        ([{"p99": 20.0}, {}, {}], 0.05, True, "p50 ±0.0 %, rate ±0.0 %"),  # too few answers to judge a p99
        ([{"p50": None}, {}, {}], 0.05, False, "a window without answers"),
        ([{"p50": None}] * 3, 0.05, False, "a window without answers"),
    ],
)
def test_windows_that_agree(windows, within, agree, words):
    windows = [a_window(**one) for one in windows]
    assert (stable(windows, within), instability(windows)) == (agree, words)


def test_in_an_open_loop_the_share_that_was_answered_is_judged():
    by_chance = [a_window(rate=rate) for rate in (80.0, 100.0, 120.0)]
    refused = [*by_chance[:2], Window(1.0, 100, 12, 120.0, 10.0, 10.0, 50.0)]
    assert not stable(by_chance)
    assert stable(by_chance, opened=True)
    assert (stable(refused, opened=True), instability(refused, opened=True)) == (False, "p50 ±0.0 %, answered ±8.3 %")


@pytest.mark.parametrize(("answers", "agree"), [(P99_NEEDS, False), (P99_NEEDS - 1, True)])
def test_a_p99_is_judged_where_there_are_answers_enough(answers, agree):
    windows = [a_window(p99=p99, answers=answers) for p99 in (50.0, 50.0, 70.0)]
    assert stable(windows) == agree
    assert ("p99 ±23.5 %" in instability(windows)) != agree


def test_medians_of_rounds():
    rounds = [summarise(steady(rate, 1000 / rate)) for rate in (100, 102, 20)]
    found = medians("8 clients", rounds, clients=8)
    assert (found.rate_per_s, found.p50_ms) == pytest.approx((100, 10))
    assert (found.requests, found.errors, found.seconds) == (222, 0, pytest.approx(3.0))
    assert (found.max_ms, found.stable, found.statuses) == (pytest.approx(50), False, {"200": 222})
    assert medians("x", rounds[:2]).stable is None
