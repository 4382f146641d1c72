"""Several engines are one to the outside: their work is shared out, and one that ends leaves it to the others."""

import asyncio
import time
from time import perf_counter

import pytest

from service.errors import Reason, RequestError
from service.models.entry import State
from tests.service.fronts.side import outcomes, outcomes_of, several, slow, submit, until


@pytest.fixture(scope="module")
def two_engines(digits):
    with several(digits, 2, 2) as both:
        yield both


def test_each_job_goes_to_the_engine_that_begins_first(two_engines, digit, monkeypatch):
    engines, (one, other) = two_engines
    quick, late = (slow(engine, monkeypatch, seconds) for engine, seconds in zip(engines, (0.005, 0.1), strict=True))

    async def ask() -> list:
        found = []
        for _ in range(20):
            found += await outcomes([submit(front, digit) for front in (one, other, one)])
        return found

    assert {result.predictions[0].label for result in asyncio.run(ask())} == {"7"}
    assert sum(quick) + sum(late) == 60
    assert sum(quick) > sum(late) > 0
    for front in (one, other):
        assert front.registry.find("lenet5").batcher.pending == 0
        assert front.registry.find("lenet5").batcher.waiting() == 0


def test_the_queue_and_the_wait_are_those_of_all_engines(digits, digit, monkeypatch):
    with several(digits, 2, 2, max_queue=6) as (engines, (one, other)):
        for engine in engines:
            slow(engine, monkeypatch, 0.1)

        async def ask() -> None:
            jobs = [submit(one, digit) for _ in range(5)]
            queue = other.registry.find("lenet5").batcher
            until(lambda: queue.waiting() == 5)
            queue.check(perf_counter() + 20, 1)
            with pytest.raises(RequestError, match=r"5 requests wait for this model \(of at most 6\)") as refused:
                queue.check(perf_counter() + 20, 2)
            assert refused.value.reason is Reason.QUEUE_FULL
            until(lambda: queue.wait() > 0)
            await outcomes(jobs)

        asyncio.run(ask())


def test_an_engine_that_ends_loses_its_own_jobs_and_comes_back(digits, digit, monkeypatch):
    with several(digits, 2, 2) as (engines, fronts):
        for engine in engines:
            slow(engine, monkeypatch, 0.1)

        async def ask() -> tuple[list, list]:
            jobs = [submit(fronts[i % 2], digit) for i in range(12)]
            await asyncio.sleep(0.05)
            await asyncio.to_thread(engines[0].end)
            await asyncio.to_thread(until, lambda: [front.registry.engines() for front in fronts] == [1, 1])
            later = [submit(fronts[i % 2], digit) for i in range(6)]
            return await outcomes(jobs), await outcomes(later)

        first, later = asyncio.run(ask())
        lost = [each for each in first if isinstance(each, RequestError)]
        assert 0 < len(lost) < 12
        assert {(each.reason, each.retry_after) for each in lost} == {(Reason.NOT_READY, 1)}
        assert {each.predictions[0].label for each in [*first, *later] if each not in lost} == {"7"}
        assert len(later) == 6
        for front in fronts:
            assert front.registry.engines() == 1
            assert front.registry.ready
            assert front.registry.entries["lenet5"].state is State.READY
        engines[1].end()
        until(lambda: not any(front.registry.ready for front in fronts))
        with pytest.raises(RequestError, match="is being loaded"):
            fronts[0].registry.find("lenet5")
        for engine in engines:
            engine.start()
        until(lambda: [front.registry.engines() for front in fronts] == [2, 2])
        sizes = [slow(engine, monkeypatch, 0.02) for engine in engines]
        assert asyncio.run(outcomes_of(fronts, digit)) == ["7"] * 20
        assert all(sizes), "both have work again"


def test_an_engine_that_hangs_gets_no_work_and_the_server_lives(digits, digit):
    with several(digits, 2, 2) as (engines, fronts):
        engines[0].loop.call_soon_threadsafe(time.sleep, 3)
        until(lambda: [front.registry.engines() for front in fronts] == [1, 1])
        begun = perf_counter()
        assert asyncio.run(outcomes_of(fronts, digit)) == ["7"] * 20
        assert perf_counter() - begun < 1
        assert all(front.registry.ready and front.registry.silent() < 0.5 for front in fronts)
        until(lambda: [front.registry.engines() for front in fronts] == [2, 2])


def test_an_engine_that_has_lost_its_gpu_gets_no_work_before_it_ends(digits, digit, monkeypatch):
    """It would take all: what fails at once never waits."""
    with several(digits, 2, 2) as (engines, fronts):
        runs = slow(engines[0], monkeypatch, 0.0)
        engines[0].models.repository.mark_broken("CUDA failure 700")
        until(lambda: [front.registry.engines() for front in fronts] == [1, 1], 1)
        assert asyncio.run(outcomes_of(fronts, digit)) == ["7"] * 20
        assert runs == []


def test_a_model_that_is_asked_for_is_loaded_by_one_engine_the_same_for_all_fronts(models):
    with several(models, 2, 2, model_idle_s=60, load="lenet5,efficientnet_lite0") as (engines, fronts):

        async def ask() -> None:
            entries = [front.registry.entries["efficientnet_lite0"] for front in fronts]
            assert {entry.state for entry in entries} == {State.ON_DEMAND}
            waits = [front.loads.wait(entry, perf_counter() + 60) for front, entry in zip(fronts, entries, strict=True)]
            await asyncio.gather(*waits)

        asyncio.run(ask())
        loaded = [engine.models.repository.entries["efficientnet_lite0"].model is not None for engine in engines]
        assert sorted(loaded) == [False, True]
        until(lambda: all(f.registry.entries["efficientnet_lite0"].state is State.READY for f in fronts))
        chosen = [
            [front.registry.order(f"model{i}")[0] is front.registry.links[0] for i in range(20)] for front in fronts
        ]
        assert chosen[0] == chosen[1], "all fronts ask the same engine"
        assert 5 < sum(chosen[0]) < 15, "models are spread over the engines"
