"""The three goals of a soak, met and missed."""

import pytest

from loadtests.soak.judge import judge
from loadtests.soak.load import Answered
from loadtests.soak.watch import Record, read_metrics

MINUTES = 6


def record(end, resident):
    return Record(end, 10.0, 5.0, 9.0, 0, 0, 0, resident, 3, 1.0, {})


def records(minutes=MINUTES, resident=lambda minute: 1000.0):
    return [record(10.0 * n, resident((n - 1) // 6)) for n in range(1, 6 * minutes + 1)]


def answered(minutes=MINUTES, latency=lambda minute: 0.05):
    """Ten answers a second; the slowest 5 % of each minute take as long as `latency` says."""
    times = [n / 10 for n in range(600 * minutes)]
    return [Answered(at, latency(int(at // 60)) if n % 20 == 0 else 0.01) for n, at in enumerate(times)]


def goods(*arguments):
    return [finding.good for finding in judge(*arguments)]


def test_all_is_well():
    assert goods(records(), answered(), {}) == [True, True, True]


@pytest.mark.parametrize(
    ("resident", "good"),
    [
        (lambda minute: [500.0, 990.0][min(minute, 1)], True),  # what grows in the first two minutes is warming up
        (lambda minute: 1000.0 + 3.0 * minute, True),
        (lambda minute: 1000.0 + 8.0 * minute, False),
        (lambda minute: 1000.0 + (25.0 if minute == 4 else 0.0), False),  # even if it is given back
        (lambda minute: 1000.0 - 50.0 * minute, True),
        (lambda minute: None, None),
    ],
)
def test_memory(resident, good):
    assert goods(records(resident=resident), answered(), {})[1] is good


@pytest.mark.parametrize(
    ("last", "good"), [(0.05, True), (0.059, True), (0.061, False), (0.041, True), (0.039, False), (0.5, False)]
)
def test_latency(last, good):
    latency = answered(latency=lambda minute: last if minute == MINUTES - 1 else 0.05)
    assert goods(records(), latency, {})[2] is good


def test_errors():
    finding = judge(records(), answered(), {"a": 1, "b": 3})[0]
    assert finding.good is False
    assert "4 errors" in str(finding)
    assert "3 x b, 1 x a" in str(finding)
    assert "MISSED" in str(finding)
    assert judge(records(), [], {})[0].good is False


def test_too_short_to_judge():
    assert goods(records(minutes=3), answered(minutes=3), {}) == [True, None, None]


METRICS = """\
# TYPE process_resident_memory_bytes gauge
process_resident_memory_bytes 3.21e+08
# TYPE zooserve_processes gauge
zooserve_processes 2.0
# HELP zooserve_queue_depth Unanswered images
# TYPE zooserve_queue_depth gauge
zooserve_queue_depth{model="a"} 3.0
zooserve_queue_depth{model="b"} 4.0
# TYPE python_gc_collections_total counter
python_gc_collections_total{generation="0"} 5.0
python_gc_collections_total{generation="1"} 2.0
# TYPE zooserve_gc_pause_seconds histogram
zooserve_gc_pause_seconds_bucket{le="+Inf"} 9.0
zooserve_gc_pause_seconds_sum 0.5
"""


def test_metrics():
    said = read_metrics(METRICS)
    assert (said.queue_depth, said.resident_mb, said.processes) == (7, 321, 2)
    assert said.gc == {"python_gc_collections_total": 7.0, "zooserve_gc_pause_seconds_sum": 0.5}


@pytest.mark.parametrize("text", ["", "<html>", "zooserve_queue_depth{"])
def test_metrics_that_say_nothing(text):
    assert read_metrics(text) == (None, None, 0, {})
