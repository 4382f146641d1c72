"""How measurements become rows, and rows a table."""

import time

import pytest

from loadtests.gpu.bench import Bench, Timing
from loadtests.gpu.nvml import Gpu, Seen
from loadtests.gpu.rows import Row, table


@pytest.fixture
def sent():
    return []


@pytest.fixture
def bench(sent):
    return Bench(3, Gpu(None), "CUDAExecutionProvider", "a card", 0.1, time.monotonic() + 60, sent.append)


def test_measure(bench):
    timing = bench.measure(lambda: time.sleep(0.01), 4)
    assert 200 < timing.rate < 400
    assert 10 <= timing.p50 <= timing.p99 < 60
    assert timing.first >= 10
    assert timing.cores < 0.5
    assert timing.seen.utilisation is None


def test_who_computes_takes_more_of_a_core_than_who_sleeps(bench):
    asleep = bench.measure(lambda: time.sleep(0.01), 1)
    assert bench.measure(lambda: sum(range(10_000)), 1).cores > 2 * asleep.cores


def test_measure_from_several_threads(bench):
    alone = bench.measure(lambda: time.sleep(0.01), 1)
    together = bench.measure(lambda: time.sleep(0.01), 1, threads=3)
    assert together.rate == pytest.approx(3 * alone.rate, rel=0.3)


def test_slow_runs_are_counted_all_the_same(bench):
    runs = []
    bench.measure(lambda: runs.append(time.sleep(0.05)), 1)
    assert len(runs) == 1 + 2 + 5


def test_what_fails_is_a_row_with_its_reason(bench, sent):
    bench.attempt("m", "way", "batch 1", lambda: 1 / 0)
    bench.attempt("m", "way", "batch 2", lambda: Timing(10.0, 1.0, 2.0, seen=Seen([50.0, 70.0], [1.0, 3.0])))
    bench.check("m", "look", lambda: "seen")
    bench.off_gpu().check("m", "look", lambda: {}["x"])
    assert [row.note for row in sent] == [
        "ZeroDivisionError: division by zero",
        "",
        "seen",
        "KeyError: 'x'",
    ]
    assert [row.card for row in sent] == ["a card", "a card", "a card", "-"]
    assert sent[0].rate is None
    assert (sent[1].rate, sent[1].utilisation, sent[1].memory_mb) == (10.0, 60.0, 3.0)


def test_a_run_that_fails_in_any_thread_fails_all(bench, sent):
    runs = iter(range(8))  # StopIteration from one of them
    bench.attempt("m", "way", "4 threads", lambda: bench.measure(lambda: next(runs), 1, threads=4))
    assert sent[0].note.startswith("StopIteration")


def test_nothing_begins_after_the_deadline(bench, sent):
    bench.deadline = time.monotonic()
    bench.attempt("m", "way", "batch 1", lambda: pytest.fail("it began"))
    assert "time is up" in sent[0].note


def test_table():
    lines = table([Row(2, "m", "fast", "threads 1", 1.25, 2.0), Row(7, "m", "x", note="a | b", card="stub")])
    assert " 1.2 | 2.00 |" in " ".join(lines.split())
    assert "a / b" in lines
    assert "| stub |" in " ".join(lines.split())
    assert len({line.count("|") for line in lines.splitlines()}) == 1
