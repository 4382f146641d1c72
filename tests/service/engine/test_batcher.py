"""The queue: what is batched, refused, skipped, isolated. `run` is arithmetic here, the threads are real."""

import asyncio
import itertools
import threading
import time

import numpy as np
import pytest

from service.engine.assembly import ImageBuffer, ImageRows
from service.engine.batcher import Batcher
from service.engine.job import Input, Job, Priority
from service.engine.workers import Workers
from service.errors import Reason, RequestError

FAR = time.perf_counter() + 3600


class Model:
    """Doubles its images; holds every run until `gate` is open, and remembers what it was given."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.batches: list[list[int]] = []
        self.running = threading.Semaphore(0)

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        images = inputs["images"]
        self.batches.append(images[:, 0, 0, 0].tolist())
        self.running.release()
        assert self.gate.wait(10)
        if 13 in images:
            raise ValueError("13 cannot be computed")
        return {"twice": images[:, 0, 0, 0].astype(np.int64) * 2}


class Value(Input[int]):
    """An image of one pixel; `first` is called before it is written."""

    def __init__(self, value: int, first=lambda: None) -> None:
        self.value, self.first = value, first

    def write(self, out: np.ndarray, *, jpegs: bool = False) -> int:
        self.first()
        out[:] = self.value
        return 0

    def answer(self, outputs: dict[str, np.ndarray], row: int) -> int:
        return int(outputs["twice"][row])


def job(value: int, *, deadline: float = FAR, priority: Priority = Priority.NORMAL, first=lambda: None) -> Job[int]:
    return Job(Value(value, first), deadline, priority)


@pytest.fixture
def model():
    model = Model()
    yield model
    model.gate.set()


@pytest.fixture
def workers():
    workers = Workers(4)
    yield workers
    workers.close()


def batcher(model: Model, workers: Workers, **given) -> Batcher:
    settings = {"max_batch": 8, "max_runs": 1, "max_queue": 100, "cost": 0.001} | given
    buffer = ImageBuffer(settings.pop("places", 64), 64, (1, 1, 3))
    return Batcher(model.run, workers, ImageRows(buffer, settings.pop("sizes", ())), **settings)


def ready(queue: Batcher) -> int:
    """How many images are ready for a run."""
    return sum(map(len, queue._assembly._ready))


def until_running(model: Model) -> None:
    assert model.running.acquire(timeout=5)


async def until(condition) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def outcome(job: Job[int]):
    try:
        return await job.future
    except Exception as error:
        return error


def test_an_idle_model_runs_at_once_and_what_comes_meanwhile_is_one_batch(model, workers):
    async def main():
        queue = batcher(model, workers)
        jobs = [job(value) for value in range(6)]
        queue.submit(jobs[0])
        await asyncio.to_thread(until_running, model)
        for later in jobs[1:]:
            queue.submit(later)
        await until(lambda: ready(queue) == 5)
        model.gate.set()
        assert [await job.future for job in jobs] == [0, 2, 4, 6, 8, 10]
        assert [sorted(batch) for batch in model.batches] == [[0], [1, 2, 3, 4, 5]]
        assert queue.pending == 0
        assert workers.predicted_wait() == pytest.approx(0)

    asyncio.run(main())


@pytest.mark.parametrize(("max_batch", "max_runs"), [(1, 1), (1, 4), (3, 1), (3, 2), (64, 1)])
def test_each_job_gets_its_own_answer(model, workers, max_batch, max_runs):
    async def main():
        model.gate.set()
        queue = batcher(model, workers, max_batch=max_batch, max_runs=max_runs, max_queue=1000)
        jobs = [job(value) for value in range(12)] * 1 + [job(value) for value in range(14, 200)]
        for one in jobs:
            queue.submit(one)
        expected = [2 * value for value in [*range(12), *range(14, 200)]]
        assert await asyncio.gather(*(one.future for one in jobs)) == expected
        assert max(map(len, model.batches)) <= max_batch

    asyncio.run(main())


def test_runs_at_once_are_as_many_as_allowed(model, workers):
    async def main():
        queue = batcher(model, workers, max_runs=2, max_batch=1)
        jobs = [job(value) for value in range(4)]
        for one in jobs:
            queue.submit(one)
        for _ in range(2):
            await asyncio.to_thread(until_running, model)
        await until(lambda: ready(queue) == 2)
        assert len(model.batches) == 2
        model.gate.set()
        assert sorted(await asyncio.gather(*(one.future for one in jobs))) == [0, 2, 4, 6]

    asyncio.run(main())


def test_one_bad_image_does_not_harm_its_batch(model, workers):
    async def main():
        queue = batcher(model, workers)
        first = job(0)
        queue.submit(first)
        await asyncio.to_thread(until_running, model)

        def broken():
            raise RequestError(Reason.UNDECODABLE, "not an image")

        jobs = [job(1), job(13), job(2), job(3, first=broken)]
        for one in jobs:
            queue.submit(one)
        await until(lambda: ready(queue) == 3)
        model.gate.set()
        answers = [await outcome(one) for one in jobs]
        assert answers[0] == 2
        assert answers[2] == 4
        assert "13 cannot be computed" in str(answers[1])
        assert answers[3].reason is Reason.UNDECODABLE
        assert [13] in model.batches  # it was found by halving the batch
        assert queue.pending == 0

    asyncio.run(main())


def test_abandoned_and_expired_jobs_are_not_run(model, workers):
    async def main():
        queue = batcher(model, workers)
        queue.submit(job(0))
        await asyncio.to_thread(until_running, model)
        gone, late, fine = job(1), job(2, deadline=time.perf_counter() + 0.05), job(3)
        for one in (gone, late, fine):
            queue.submit(one)
        gone.abandoned = True
        await asyncio.sleep(0.06)
        model.gate.set()
        assert await fine.future == 6
        error = await outcome(late)
        assert error.reason is Reason.DEADLINE
        assert "deadline" in error.detail
        await outcome(gone)
        assert model.batches == [[0], [3]]

    asyncio.run(main())


def test_a_full_queue_refuses_and_says_when_to_come_back(model, workers):
    async def main():
        queue = batcher(model, workers, max_queue=3, cost=2.0)
        jobs = [job(value) for value in range(3)]
        for one in jobs:
            queue.submit(one)
        with pytest.raises(RequestError) as refused:
            queue.submit(job(4))
        assert refused.value.reason is Reason.QUEUE_FULL
        assert refused.value.retry_after == 2  # 3 images of 2 s on 4 workers
        model.gate.set()
        assert await asyncio.gather(*(one.future for one in jobs)) == [0, 2, 4]
        queue.submit(again := job(5))
        assert await again.future == 10

    asyncio.run(main())


def test_what_cannot_be_answered_in_time_is_refused_instead_of_queued(model, workers):
    async def main():
        queue = batcher(model, workers, cost=1.0)
        for value in range(8):
            queue.submit(job(value))
        with pytest.raises(RequestError) as refused:
            queue.submit(job(9, deadline=time.perf_counter() + 3.0))  # 8 images of 1 s on 4 workers, and its own
        assert refused.value.reason is Reason.QUEUE_FULL
        with pytest.raises(RequestError) as refused:
            queue.submit(job(9, deadline=time.perf_counter() - 0.1))
        assert refused.value.reason is Reason.DEADLINE
        assert refused.value.retry_after is None
        queue.submit(job(9, deadline=time.perf_counter() + 4.0))
        model.gate.set()

    asyncio.run(main())


def test_out_of_memory_makes_batches_smaller_for_good(workers):
    sizes = []

    def run(inputs):
        images = inputs["images"]
        sizes.append(len(images))
        if len(images) > 2:
            raise MemoryError
        return {"twice": images[:, 0, 0, 0].astype(np.int64) * 2}

    async def main():
        rows = ImageRows(ImageBuffer(64, 8, (1, 1, 3)))
        queue = Batcher(run, workers, rows, max_batch=8, max_runs=1, max_queue=100, cost=0.001)
        queue._runs = 1  # as if a run were under way, so that eight images become ready
        jobs = [job(value) for value in range(8)]
        for one in jobs:
            queue.submit(one)
        await until(lambda: ready(queue) == 8)
        queue._runs = 0
        queue.submit(last := job(8))
        assert await asyncio.gather(*(one.future for one in [*jobs, last])) == [2 * value for value in range(9)]
        assert queue.max_batch == 2
        assert sizes[0] == 8
        assert set(sizes[-3:]) <= {1, 2}

    asyncio.run(main())


def test_batches_are_padded_to_the_sizes_that_are_known(model, workers):
    async def main():
        queue = batcher(model, workers, sizes=(1, 4, 8))
        jobs = [job(value) for value in range(1, 7)]
        queue.submit(jobs[0])
        await asyncio.to_thread(until_running, model)
        for one in jobs[1:]:
            queue.submit(one)
        await until(lambda: ready(queue) == 5)
        model.gate.set()
        assert await asyncio.gather(*(one.future for one in jobs)) == [2, 4, 6, 8, 10, 12]
        assert {len(batch) for batch in model.batches} <= {1, 4, 8}

    asyncio.run(main())


def test_images_that_find_no_row_wait_for_one_by_priority(model, workers):
    async def main():
        queue = batcher(model, workers, places=8, max_batch=4)
        queue.submit(first := job(0))
        await asyncio.to_thread(until_running, model)
        jobs = [job(value) for value in range(20, 60)]
        for one in jobs:
            queue.submit(one)
        urgent = job(100, priority=Priority.HIGH)
        queue.submit(urgent)
        await until(lambda: ready(queue) == 7)
        await until(lambda: len(queue._assembly._buffer._without) == 34)
        model.gate.set()
        assert await asyncio.gather(*(one.future for one in jobs)) == [2 * value for value in range(20, 60)]
        assert (await first.future, await urgent.future) == (0, 200)
        assert len(model.batches[1]) == 4, "none is run alone"
        assert any(100 in batch for batch in model.batches[:5])
        await until(lambda: queue.pending == 0)
        assert sorted(queue._assembly._buffer._free) == [*range(8)]

    asyncio.run(main())


async def made_ready(queue: Batcher, order: list[Priority]) -> list[Job[int]]:
    """Jobs 1, 2, ... of these priorities, each ready before the next one is submitted."""
    jobs = [job(value, priority=priority) for value, priority in enumerate(order, 1)]
    for number, one in enumerate(jobs, 1):
        queue.submit(one)
        await until(lambda number=number: ready(queue) == number)
    return jobs


def test_images_that_are_ready_are_run_by_priority_wherever_they_lie(model, workers):
    async def main():
        queue = batcher(model, workers, max_batch=2)
        queue.submit(first := job(0))
        await asyncio.to_thread(until_running, model)
        order = [Priority.LOW, Priority.HIGH, Priority.NORMAL, Priority.LOW, Priority.HIGH, Priority.NORMAL]
        jobs = await made_ready(queue, order)
        model.gate.set()
        assert await asyncio.gather(first.future, *(one.future for one in jobs)) == [2 * value for value in range(7)]
        assert model.batches == [[0], [2, 5], [3, 6], [1, 4]]

    asyncio.run(main())


def test_a_job_that_is_too_late_lets_no_lower_priority_go_first(model, workers):
    async def main():
        queue = batcher(model, workers, max_batch=2)
        queue.submit(first := job(0))
        await asyncio.to_thread(until_running, model)
        jobs = await made_ready(queue, [Priority.HIGH, Priority.HIGH, Priority.LOW, Priority.HIGH])
        jobs[1].abandoned = True
        model.gate.set()
        assert [await outcome(one) for one in [first, jobs[0], *jobs[2:]]] == [0, 2, 6, 8]
        assert (await outcome(jobs[1])).reason is Reason.DEADLINE
        assert model.batches == [[0], [1, 4], [3]]

    asyncio.run(main())


def test_the_wait_is_predicted_from_what_work_really_takes(workers):
    """The workers are slower together than alone, as on a machine that they share with others."""

    def slow(inputs):
        images = inputs["images"]
        time.sleep(0.01 * len(images))
        return {"twice": images[:, 0, 0, 0].astype(np.int64) * 2}

    async def main():
        rows = ImageRows(ImageBuffer(8, 1, (1, 1, 3)))
        queue = Batcher(slow, workers, rows, max_batch=1, max_runs=1, max_queue=500, cost=0.01)
        first = [job(value % 10) for value in range(100)]
        for one in first:
            queue.submit(one)
        assert workers.predicted_wait() == pytest.approx(100 * 0.01 / 4, rel=0.1), "before anything was seen"
        await asyncio.gather(*(one.future for one in first))
        again = [job(value % 10) for value in range(50)]
        for one in again:
            queue.submit(one)
        predicted = workers.predicted_wait()
        await asyncio.gather(*(one.future for one in again))
        assert predicted > 2 * 50 * 0.01 / 4, "one run at a time: four times as long"

    asyncio.run(main())


def test_higher_priority_goes_first(model):
    async def main():
        workers = Workers(1)
        queue = batcher(model, workers, max_batch=1)
        queue.submit(job(0))
        await asyncio.to_thread(until_running, model)
        jobs = [job(1, priority=Priority.LOW), job(2), job(3, priority=Priority.HIGH)]
        for one in jobs:
            queue.submit(one)
        model.gate.set()
        await asyncio.gather(*(one.future for one in jobs))
        assert model.batches == [[0], [3], [2], [1]]
        workers.close()

    asyncio.run(main())


def test_stages_add_up_to_the_whole(model, workers):
    async def main():
        model.gate.set()
        one = job(1)
        batcher(model, workers).submit(one)
        await one.future
        spans = one.spans()
        assert [stage for stage, _, _ in spans] == ["queue", "decode", "queue", "infer", "postprocess"]
        assert spans[0][1] == one.submitted
        assert spans[-1][2] == one.finished
        assert all(end == start for (_, _, end), (_, start, _) in itertools.pairwise(spans)), "no time is lost"
        assert all(start <= end for _, start, end in spans)

    asyncio.run(main())


def test_workers_end_when_they_are_closed():
    workers = Workers(3)
    workers.close()
    for thread in list(workers._threads):
        thread.join(5)
        assert not thread.is_alive()
