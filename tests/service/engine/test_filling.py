"""On a CPU a worker fills a batch before it runs it, from the images that wait for it, and leaves none behind."""

import asyncio
import random
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from time import perf_counter

import pytest

from service.engine.assembly import ImageBuffer, ImageRows
from service.engine.batcher import Batcher
from service.engine.job import Job, Priority
from service.engine.workers import Workers
from tests.service.engine.test_batcher import Model, job, outcome, until
from tests.service.engine.test_job import Panic
from tests.service.engine.test_workers import LIMIT, late

LOW, HIGH = Priority.LOW, Priority.HIGH


class Bench:
    """A model, its queue, and workers that begin when all jobs are submitted."""

    def __init__(self, workers: Workers, max_batch: int = 4, places: int = 64) -> None:
        self.model = Model()
        self.model.gate.set()
        self.held = threading.Event()
        self.workers = workers
        self.queue = self.another(self.model, max_batch, places)

    def another(self, model: Model, max_batch: int = 4, places: int = 64) -> Batcher:
        rows = ImageRows(ImageBuffer(places, max_batch, (1, 1, 3)))
        settings = {"max_batch": max_batch, "max_runs": self.workers.size, "max_queue": 1000, "cost": 0.001}
        return Batcher(model.run, self.workers, rows, **settings)

    def first(self, value: int, **given) -> Job[int]:
        """A job that keeps its worker until `answers` is called."""
        begun = threading.Event()
        one = job(value, first=lambda: (begun.set(), self.held.wait(10)), **given)
        self.queue.submit(one)
        assert begun.wait(10)
        return one

    def submit(self, *values: int, **given) -> list[Job[int]]:
        jobs = [job(value, **given) for value in values]
        for one in jobs:
            self.queue.submit(one)
        return jobs

    async def answers(self, *jobs: Job[int]) -> list[object]:
        self.held.set()
        async with asyncio.timeout(10):
            return [await outcome(one) for one in jobs]

    @property
    def batches(self) -> list[list[int]]:
        return self.model.batches


def bench(test: Callable[[Bench], Coroutine[None, None, None]], size: int = 1, limit: float = 0.0, **given) -> None:
    workers = Workers(size, limit)
    try:

        async def main() -> None:
            await test(Bench(workers, **given))

        asyncio.run(main())
    finally:
        workers.close()


def test_a_batch_is_filled_from_what_waits():
    async def test(one: Bench) -> None:
        jobs = [one.first(0), *one.submit(*range(1, 9))]
        assert await one.answers(*jobs) == [2 * value for value in range(9)]
        assert one.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]

    bench(test)


def test_an_image_waits_for_none_that_has_not_come():
    async def test(one: Bench) -> None:
        for value in range(3):
            assert await one.answers(*one.submit(value)) == [2 * value]
        assert one.batches == [[0], [1], [2]]

    bench(test)


def test_an_image_does_not_wait_for_another_models():
    async def test(one: Bench) -> None:
        first = one.first(0)
        other = Model()
        other.gate.set()
        between = job(1)
        one.another(other).submit(between)
        last = one.submit(2)
        assert await one.answers(first, between, *last) == [0, 2, 4]
        assert one.batches == [[0], [2]]

    bench(test)


@pytest.mark.parametrize(("priority", "batches"), [(Priority.NORMAL, [[0, 1, 2]]), (LOW, [[0], [1, 2]])])
def test_an_image_does_not_wait_for_one_of_lower_priority(priority, batches):
    async def test(one: Bench) -> None:
        jobs = [one.first(0), *one.submit(1, 2, priority=priority)]
        assert await one.answers(*jobs) == [0, 2, 4]
        assert one.batches == batches

    bench(test)


def test_one_of_higher_priority_is_taken_along_and_waits_for_no_further_one():
    async def test(one: Bench) -> None:
        jobs = [one.first(0), *one.submit(1), *one.submit(2, priority=HIGH)]
        assert await one.answers(*jobs) == [0, 2, 4]
        assert one.batches == [[0, 2], [1]]

    bench(test)


@pytest.mark.parametrize("error", [ValueError, Panic])
@pytest.mark.parametrize("broken", [[1], [1, 2, 3], [3]])
def test_images_are_run_whose_batch_waits_for_broken_ones(broken, error):
    def fail() -> None:
        raise error("broken")

    async def test(one: Bench) -> None:
        jobs = [one.first(0)]
        for value in range(1, 4):
            jobs.append(job(value, first=fail if value in broken else lambda: None))
            one.queue.submit(jobs[-1])
        answers = await one.answers(*jobs)
        assert [value for value in range(4) if isinstance(answers[value], ValueError | RuntimeError)] == broken
        assert [value for batch in one.batches for value in batch] == [each for each in range(4) if each not in broken]

    bench(test)


def test_an_image_does_not_wait_for_ever_more_broken_ones():
    async def test(one: Bench) -> None:
        tried = []

        def fail(value: int) -> None:
            tried.append(value)
            raise ValueError("broken")

        one.model.gate.clear()
        jobs = [one.first(0)]
        for value in range(1, 50):
            jobs.append(job(value, first=partial(fail, value)))
            one.queue.submit(jobs[-1])
        one.held.set()
        await until(lambda: one.batches == [[0]])
        assert tried == [1, 2, 3], "as many as the batch had room for"
        one.model.gate.set()
        assert (await one.answers(*jobs))[0] == 0
        assert tried == [*range(1, 50)]

    bench(test)


@pytest.mark.parametrize(("seconds", "batches"), [(60.0, [[0, 1]]), (0.5, [[0], [1]])])
def test_an_image_whose_deadline_is_near_does_not_wait_for_another(seconds, batches):
    async def test(one: Bench) -> None:
        one.queue._cost = 0.2  # a batch of 4 takes longer than half a second
        jobs = [one.first(0, deadline=perf_counter() + seconds)]
        jobs.append(job(1))
        one.queue.enter(jobs[-1])
        assert await one.answers(*jobs) == [0, 2]
        assert one.batches == batches

    bench(test)


def test_an_image_does_not_wait_for_one_that_an_idle_worker_can_prepare():
    async def test(one: Bench) -> None:
        one.workers.size = 2  # as if there were another one, which has not woken up yet
        jobs = [one.first(0), *one.submit(1)]
        assert await one.answers(*jobs) == [0, 2]
        assert one.batches == [[0], [1]]

    bench(test)


def test_an_image_does_not_wait_long_for_a_slow_one_where_another_worker_is_free():
    async def test(one: Bench) -> None:
        release, busy = threading.Event(), threading.Event()
        first, other = one.first(0), Model()
        another = job(7, first=lambda: busy.wait(10))  # of another model, on the other worker
        other.gate.set()
        one.another(other).submit(another)
        slow = job(1, first=lambda: release.wait(10))
        one.queue.submit(slow)
        one.held.set()
        await asyncio.sleep(0.1)  # the first worker has begun with the slow one
        busy.set()
        assert await one.answers(first, another) == [0, 14]
        assert not slow.finished
        release.set()
        assert await one.answers(slow) == [2]

    bench(test, size=2, limit=30.0)


def test_images_are_run_whose_batch_waits_for_one_that_takes_too_long():
    async def test(one: Bench) -> None:
        release = threading.Event()
        stuck = job(1, first=lambda: release.wait(30))
        first = one.first(0)
        one.queue.submit(stuck)
        try:
            assert await one.answers(first) == [0]
            assert late(await outcome(stuck))
        finally:
            release.set()
        await until(lambda: one.queue.pending == one.queue._runs == 0 and len(one.workers._threads) == 1)
        assert one.batches == [[0]]

    bench(test, limit=LIMIT)


@pytest.mark.parametrize("places", [1, 2, 3])
def test_images_are_run_where_there_are_fewer_rows_than_a_batch_has(places):
    async def test(one: Bench) -> None:
        jobs = [one.first(0), *one.submit(*range(1, 9))]
        assert await one.answers(*jobs) == [2 * value for value in range(9)]

    bench(test, places=places)


@pytest.mark.parametrize("seed", range(5))
def test_none_is_left_behind(seed):
    """Two models on three workers, with images of all priorities, some of them broken, as they come."""
    chance = random.Random(seed)

    def fail() -> None:
        raise ValueError("broken")

    async def test(one: Bench) -> None:
        other = Model()
        other.gate.set()
        queues = [one.queue, one.another(other, max_batch=3, places=4)]
        one.held.set()
        jobs = []
        for value in range(14, 214):
            broken = chance.random() < 0.2
            jobs.append(job(value, priority=chance.choice([*Priority]), first=fail if broken else lambda: None))
            chance.choice(queues).submit(jobs[-1])
            if chance.random() < 0.3:
                await asyncio.sleep(chance.random() / 1000)
        answers = await one.answers(*jobs)
        assert all(isinstance(answer, ValueError) or answer == 2 * (14 + n) for n, answer in enumerate(answers))
        await until(lambda: all(queue.pending == queue._runs == 0 for queue in queues))

    bench(test, size=3)
