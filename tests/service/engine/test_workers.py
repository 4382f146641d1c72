"""A thread that takes too long is replaced: its jobs are refused, all others are answered, and nothing is lost."""

import asyncio
import threading

import numpy as np
import pytest

from service.engine.assembly import ImageBuffer, ImageRows
from service.engine.batcher import Batcher
from service.engine.workers import Workers
from service.errors import Reason, RequestError
from tests.service.engine.test_batcher import Model, job, outcome, ready, until

LIMIT = 0.2  # seconds


@pytest.fixture
def release():
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def model():
    model = Model()
    model.gate.set()
    return model


def started(workers: Workers, model, **given) -> Batcher:
    settings = {"max_batch": 8, "max_runs": workers.size, "max_queue": 100, "cost": 0.001} | given
    return Batcher(model.run, workers, ImageRows(ImageBuffer(64, 64, (1, 1, 3))), **settings)


def late(answer) -> bool:
    return isinstance(answer, RequestError) and answer.reason is Reason.DEADLINE and "ZOOSERVE_WORK_S" in answer.detail


async def all_returned(workers: Workers, queue: Batcher, size: int) -> None:
    """Wait until nothing is pending, and the threads that were replaced have ended."""
    await until(lambda: queue.pending == 0 and not workers._steps)
    assert queue._runs == 0
    assert len(queue._assembly._buffer._free) == 64
    await until(lambda: len(workers._threads) == size)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("where", ["prepare", "run", "answer"])
def test_what_takes_too_long_is_refused_and_the_others_are_answered(model, release, size, where):
    async def main():
        workers = Workers(size, LIMIT)
        queue = started(workers, model, max_batch=1)
        run = model.run

        def held(inputs):
            if 7 in inputs["images"]:
                release.wait(30)
            return run(inputs)

        def first():
            if where == "prepare":
                release.wait(30)

        stuck = [job(7, first=first) for _ in range(size)]
        if where == "run":
            queue._runs_on = {1: held}
        if where == "answer":
            for one in stuck:
                one.input.answer = lambda *_: release.wait(30)
        for one in stuck:
            queue.submit(one)
        others = [job(value) for value in range(6)]
        for one in others:
            queue.submit(one)
        async with asyncio.timeout(10):
            assert all([late(await outcome(one)) for one in stuck])
            assert [await one.future for one in others] == [0, 2, 4, 6, 8, 10]
        assert queue.pending == size, "what is still at work is pending"
        release.set()
        await all_returned(workers, queue, size)
        after = job(5)
        queue.submit(after)
        assert await after.future == 10
        workers.close()

    asyncio.run(main())


def test_jobs_of_a_batch_that_were_answered_keep_their_answers(model, release):
    async def main():
        workers = Workers(1, LIMIT)
        queue = started(workers, model)
        held = threading.Event()
        first = job(0, first=lambda: held.wait(5))
        jobs = [job(1), job(2), job(3)]
        jobs[1].input.answer = lambda *_: release.wait(30)
        queue.submit(first)
        with queue._lock:
            queue._runs += 1  # so that all of them are ready before any is run
        for one in jobs:
            queue.submit(one)
        held.set()
        await until(lambda: ready(queue) == 4)
        trigger = job(4)
        with queue._lock:
            queue._runs -= 1
        queue.submit(trigger)
        answers = [await outcome(one) for one in [first, *jobs, trigger]]
        assert answers[:2] == [0, 2]
        assert late(answers[2])
        assert all(late(answer) for answer in answers[3:]), "they come behind the one that holds the thread"
        release.set()
        await all_returned(workers, queue, 1)
        workers.close()

    asyncio.run(main())


def test_without_a_limit_threads_are_waited_for(model, release):
    async def main():
        workers = Workers(1)
        queue = started(workers, model)
        slow = job(7, first=lambda: release.wait(0.5))
        queue.submit(slow)
        assert await slow.future == 14
        workers.close()

    asyncio.run(main())


def test_slow_images_do_not_make_a_process_look_dead_unless_they_are_as_many_as_its_threads(model, release):
    async def main():
        workers = Workers(2, LIMIT)
        queue = started(workers, model)
        slow = [job(7, first=lambda: release.wait(30)) for _ in range(2)]
        queue.submit(slow[0])
        assert late(await outcome(slow[0]))
        assert workers.longest() < LIMIT
        queue.submit(slow[1])
        assert late(await outcome(slow[1]))
        assert workers.longest() > LIMIT
        release.set()
        await all_returned(workers, queue, 2)
        assert workers.longest() < LIMIT
        workers.close()

    asyncio.run(main())


def test_a_late_job_does_not_count_as_the_cost_of_one(model, release):
    async def main():
        workers = Workers(1, LIMIT)
        queue = started(workers, model)
        slow = job(7, first=lambda: release.wait(30))
        queue.submit(slow)
        await outcome(slow)
        release.set()
        await all_returned(workers, queue, 1)
        assert queue._cost == 0.001
        workers.close()

    asyncio.run(main())


def test_rows_of_a_run_that_was_given_up_stay_taken_until_it_ends(model, release):
    """The rows of a batch stay taken until its run is over: another image in them would be computed in part."""

    async def main():
        workers = Workers(1, LIMIT)
        seen = []

        def run(inputs):
            images = inputs["images"]
            if images[0, 0, 0, 0] == 7:
                release.wait(30)
                seen.append(images.copy())
            return {"twice": images[:, 0, 0, 0].astype(np.int64) * 2}

        model.run = run
        queue = started(workers, model)
        slow = job(7)
        queue.submit(slow)
        assert late(await outcome(slow))
        others = [job(value) for value in (1, 2, 3)]
        for one in others:
            queue.submit(one)
        assert [await one.future for one in others] == [2, 4, 6]
        release.set()
        await all_returned(workers, queue, 1)
        assert seen[0].ravel().tolist() == [7, 7, 7]
        workers.close()

    asyncio.run(main())
