"""Which model makes room for another, and which can never be loaded."""

import re
from time import perf_counter
from types import SimpleNamespace

import pytest

from service.models.budget import Budget
from service.models.footprint import Footprint
from service.models.usage import Usage
from service.settings import Settings

MB = 1_000_000


def entry(
    name,
    *,
    mb=100,
    gpu=0,
    seconds=1.0,
    uses=0,
    pinned=False,
    loaded=True,
    loading=False,
    age=1000.0,
    holds=0,
    pending=0,
    reserved=0,
):
    usage = Usage()
    for _ in range(uses):
        usage.begin()
        usage.end()
    usage.since -= age
    usage.holds = holds
    model = SimpleNamespace(usage=usage, batcher=SimpleNamespace(pending=pending)) if loaded else None
    return SimpleNamespace(
        name=name,
        model=model,
        pinned=pinned,
        is_loading=loading,
        footprint=Footprint(mb * MB, gpu * MB, mb * MB, seconds),
        reserved=Footprint(reserved * MB, peak=2 * reserved * MB),
    )


@pytest.mark.parametrize(
    ("entries", "victim"),
    [
        ([], None),
        ([entry("a", uses=5), entry("b", uses=1)], "b"),  # used less
        ([entry("a", uses=1, seconds=9), entry("b", uses=1)], "b"),  # quicker to load again
        ([entry("a", uses=1, mb=300), entry("b", uses=1)], "a"),  # frees more
        ([entry("a", uses=9), entry("b", pinned=True)], "a"),
        ([entry("a", uses=9), entry("b", holds=1)], "a"),
        ([entry("a", uses=9), entry("b", pending=1)], "a"),
        ([entry("a", uses=9), entry("b", loading=True)], "a"),
        ([entry("a", uses=9), entry("b", loaded=False)], "a"),
        ([entry("a", uses=9), entry("b", age=-1e6)], "a"),  # it is new
        ([entry("a", pinned=True), entry("b", holds=1)], None),
    ],
)
def test_the_least_valuable_idle_model_makes_room(entries, victim):
    found = Budget(Settings(memory_mb=1)).victim(entries, perf_counter())
    assert (found and found.name) == victim


@pytest.mark.parametrize(
    ("settings", "need", "fits", "refusal"),
    [
        ({"memory_mb": 500}, Footprint(200 * MB), True, ""),
        ({"memory_mb": 500}, Footprint(200 * MB, peak=400 * MB), False, ""),  # its load takes more than it does
        ({"memory_mb": 500}, Footprint(450 * MB), False, "it takes 450 MB of memory, and of the 500 MB .* 400 MB"),
        (
            {"memory_mb": 500},
            Footprint(50 * MB, peak=450 * MB),
            False,
            r"450 MB of memory to load \(50 MB afterwards\), and",
        ),
        ({"memory_mb": 500}, Footprint(50 * MB, 900 * MB, peak=450 * MB), False, r"to load \(50 MB afterwards\)"),
        ({"memory_mb": 1000, "workers": 2}, Footprint(450 * MB), False, "of the 500 MB"),
        ({"gpu_memory_mb": 500}, Footprint(900 * MB, 100 * MB), True, ""),
        ({"gpu_memory_mb": 500}, Footprint(0, 450 * MB), False, "it takes 450 MB of GPU memory"),
        ({"model_idle_s": 5}, Footprint(10**12), True, ""),
    ],
)
def test_what_has_room(settings, need, fits, refusal):
    entries = [entry("p", gpu=100, pinned=True), entry("a", gpu=100), entry("b", mb=900, loaded=False)]
    budget = Budget(Settings(**settings))
    assert budget.on
    assert budget.fits(need, entries) == fits

    found = budget.refusal(need, entries)
    assert bool(found) == bool(refusal)
    assert re.search(refusal, found)


@pytest.mark.parametrize(
    ("reserved", "unbooked", "fits"), [(0, 0, True), (100, 0, True), (101, 0, False), (0, 200, True), (0, 201, False)]
)
def test_loads_under_way_and_memory_that_nobody_booked_count(reserved, unbooked, fits):
    """A new version of a loaded model is there beside the old one; its load takes twice what it does."""
    entries = [entry("a"), entry("b", reserved=reserved)]
    assert Budget(Settings(memory_mb=500)).fits(Footprint(100 * MB), entries, unbooked * MB) == fits


@pytest.mark.parametrize(
    ("loaded", "reserved", "need", "refused"),
    [
        (True, 0, 400, False),
        (True, 100, 400, False),  # the same again: both are there for a moment
        (True, 200, 300, False),
        (True, 200, 301, True),
        (False, 200, 300, False),  # its load takes twice what it does
        (False, 200, 301, True),
        (False, 0, 500, False),
    ],
)
def test_a_load_under_way_is_no_reason_to_refuse_for_ever(loaded, reserved, need, refused):
    entries = [entry("pinned", pinned=True, loaded=loaded, reserved=reserved), entry("other", reserved=400)]
    assert bool(Budget(Settings(memory_mb=500)).refusal(Footprint(need * MB), entries)) == refused


def test_without_a_limit_there_is_no_budget():
    assert not Budget(Settings()).on


def test_old_uses_count_less(monkeypatch):
    usage = Usage()
    usage.begin()
    usage.end()
    now = perf_counter()
    assert usage.recent(now) == pytest.approx(1, abs=0.01)
    assert usage.recent(now + 300) == pytest.approx(1 / 2.718, abs=0.01)
    assert usage.idle(now + 300) == pytest.approx(300, abs=0.1)
    usage.begin()
    assert usage.idle(now + 300) == 0
