"""Each part of a step runs in a process of its own: its rows come at once, and whatever happens to it is a row."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from loadtests.gpu import apart
from loadtests.gpu.plan import Plan

ROOT = Path(__file__).parents[3]


@pytest.fixture
def plan(models, monkeypatch):
    monkeypatch.chdir(ROOT)
    return Plan(2, "cores", str(models), ("lenet5",), "cpu", 0.05, 0.0, quick=True)


def rows_of(plan, seconds):
    rows = []
    apart.run_part(plan, seconds, rows.append)
    return rows


def test_rows_come_through(plan):
    rows = rows_of(plan, 60)
    assert len(rows) >= 2
    assert all(row.step == 2 and row.model == "lenet5" and row.rate > 0 and not row.note for row in rows)


def test_a_process_that_ends_with_an_error_is_a_row(plan):
    (row,) = rows_of(replace(plan, root="/nowhere"), 60)
    assert "ended with exit code 1" in row.note
    assert "/nowhere" in row.note


def test_a_process_that_takes_too_long_is_stopped_and_what_it_measured_stays(plan):
    start = time.monotonic()
    rows = rows_of(replace(plan, seconds=60), 6)
    assert time.monotonic() - start < 15
    assert rows[-1].note == "stopped: it took longer than 6 s"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_process_that_is_killed_is_a_row(plan, monkeypatch, number):
    started = []

    def popen(*arguments, **options):
        process = subprocess.Popen(*arguments, **options)
        started.append(process)
        os.kill(process.pid, number)
        return process

    monkeypatch.setattr(apart, "subprocess", type("Module", (), vars(subprocess) | {"Popen": staticmethod(popen)}))
    (row,) = rows_of(plan, 60)
    assert f"was killed by signal {int(number)}" in row.note


def test_what_nvidias_wheels_bring_is_found_after_what_was_there(monkeypatch, tmp_path):
    (tmp_path / "nvidia/cu13/lib").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setenv("LD_LIBRARY_PATH", "/first")
    assert apart.libraries() == f"/first:{tmp_path}/nvidia/cu13/lib"
