"""How measurements become rows, and rows a table."""

import time

import pytest

from loadtests.gpu.bench import Bench, Row, Timing, table
from loadtests.gpu.nvml import Gpu, Seen


@pytest.fixture
def bench():
    return Bench(Gpu(None), 0.1, time.monotonic() + 60, on_row=lambda row: None)


def test_measure(bench):
    timing = bench.measure(lambda: time.sleep(0.01), 4)
    assert 200 < timing.rate < 400
    assert 10 <= timing.p50 <= timing.p99 < 60
    assert timing.first >= 10
    assert timing.seen.utilisation is None


def test_measure_from_several_threads(bench):
    alone = bench.measure(lambda: time.sleep(0.01), 1)
    together = bench.measure(lambda: time.sleep(0.01), 1, threads=3)
    assert together.rate == pytest.approx(3 * alone.rate, rel=0.3)


def test_slow_runs_are_counted_all_the_same(bench):
    runs = []
    bench.measure(lambda: runs.append(time.sleep(0.05)), 1)
    assert len(runs) == 1 + 2 + 5


def test_what_fails_is_a_row_with_its_reason(bench):
    told = []
    bench.on_row = told.append
    bench.attempt("session", "m", "way", "batch 1", lambda: 1 / 0)
    bench.attempt("session", "m", "way", "batch 2", lambda: Timing(10.0, 1.0, 2.0, seen=Seen([50.0, 70.0], [1.0, 3.0])))
    assert told == bench.rows
    assert bench.rows[0].note == "ZeroDivisionError: division by zero"
    assert bench.rows[0].rate is None
    assert (bench.rows[1].rate, bench.rows[1].utilisation, bench.rows[1].memory_mb) == (10.0, 60.0, 3.0)


def test_nothing_begins_after_the_deadline(bench):
    bench.deadline = time.monotonic()
    bench.attempt("session", "m", "way", "batch 1", lambda: pytest.fail("it began"))
    assert "time is up" in bench.rows[0].note


def test_table():
    lines = table([Row("decode", "m", "fast", "threads 1", 1.25, 2.0), Row("http", "m", "x", "-", note="a | b")])
    assert " 1.2 | 2.00 |" in " ".join(lines.split())
    assert "a / b" in lines
    assert len({line.count("|") for line in lines.splitlines()}) == 1
