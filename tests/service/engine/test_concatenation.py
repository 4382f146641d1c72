"""The queue of tensors: what shares a run, in which order, and that one bad request does not harm the others."""

import asyncio
import threading
import time

import numpy as np
import pytest

from service.engine.assembly import Concatenation
from service.engine.batcher import Batcher
from service.engine.job import Job, Priority
from service.engine.workers import Workers
from service.errors import Reason, RequestError
from service.models.inputs import TensorRows

FAR = time.perf_counter() + 3600


class Doubles:
    """Doubles its rows; holds every run until `gate` is open, and remembers the shapes that it was given."""

    def __init__(self):
        self.gate = threading.Event()
        self.shapes: list[tuple[int, ...]] = []

    def run(self, inputs):
        (x,) = inputs.values()
        self.shapes.append(x.shape)
        assert self.gate.wait(10)
        if (x == 13).any():
            raise ValueError("13 cannot be computed")
        if (x == 7).any():
            return {"y": x[:0]}
        return {"y": 2 * x}


@pytest.fixture
def model():
    model = Doubles()
    yield model
    model.gate.set()


@pytest.fixture
def run(model):
    """Submit jobs while a first one runs, then open the gate: the outcomes, and the shapes of the runs."""
    workers = Workers(2)
    sizes = []

    async def submit(jobs, **limits):
        settings = {"max_batch": 4, "max_runs": 1, "max_queue": 100, "cost": 0.001} | limits
        batcher = Batcher(model.run, workers, Concatenation(), observe_batch=sizes.append, **settings)
        made = [job() for job in jobs]
        batcher.submit(made[0])
        while not model.shapes:
            await asyncio.sleep(0.001)
        for job in made[1:]:
            batcher.submit(job)
        model.gate.set()
        outcomes = await asyncio.gather(*(job.future for job in made), return_exceptions=True)
        assert batcher.pending == 0
        return outcomes

    yield lambda *jobs, **limits: (asyncio.run(submit(jobs, **limits)), model.shapes)
    workers.close()


def job(value, *shape, deadline=FAR, priority=Priority.NORMAL):
    x = np.full(shape or (1, 2), value, np.float32)
    return lambda: Job(TensorRows({"x": x}, len(x)), deadline, priority)


def test_what_waits_shares_a_run_and_every_row_comes_back(run):
    outcomes, shapes = run(job(0), job(1), job(2, 2, 2), job(3))
    assert shapes == [(1, 2), (4, 2)]
    for value, (outcome, rows) in enumerate(zip(outcomes, (1, 1, 2, 1), strict=True)):
        np.testing.assert_array_equal(outcome["y"], np.full((rows, 2), 2 * value))


def test_only_equal_shapes_share_a_run(run):
    outcomes, shapes = run(job(0), job(1), job(2, 1, 3), job(3), job(4, 1, 3))
    assert shapes == [(1, 2), (2, 2), (2, 3)]
    assert [outcome["y"].shape for outcome in outcomes] == [(1, 2), (1, 2), (1, 3), (1, 2), (1, 3)]


def test_a_run_has_at_most_so_many_rows_but_a_request_stays_whole(run):
    _, shapes = run(job(0), job(1, 3, 2), job(2, 2, 2), job(3, 9, 2), job(4, 1, 2))
    assert shapes == [(1, 2), (4, 2), (2, 2), (9, 2)]


def test_higher_priority_goes_first(run):
    _, shapes = run(job(0), job(1, 1, 2, priority=Priority.LOW), job(2, 1, 3), job(3, 1, 4, priority=Priority.HIGH))
    assert shapes == [(1, 2), (1, 4), (1, 3), (1, 2)]


def test_one_bad_request_does_not_harm_the_others(run):
    outcomes, _ = run(job(0), job(1), job(13), job(3), job(4))
    assert [isinstance(outcome, ValueError) for outcome in outcomes] == [False, False, True, False, False]


def test_too_few_rows_from_the_graph_are_refused(run):
    outcomes, _ = run(job(0), job(7))
    assert isinstance(outcomes[1], RequestError)
    assert outcomes[1].reason is Reason.INTERNAL


def test_an_abandoned_request_is_not_run(run):
    def abandoned():
        made = job(1, 1, 5)()
        made.abandoned = True
        return made

    outcomes, shapes = run(job(0), abandoned, job(2))
    assert shapes == [(1, 2), (1, 2)]
    assert outcomes[1].reason is Reason.DEADLINE


def test_a_full_queue_refuses(run):
    with pytest.raises(RequestError) as refusal:
        run(job(0), job(1), max_queue=1)
    assert refusal.value.reason is Reason.QUEUE_FULL


@pytest.mark.parametrize("threads", [1, 2])
def test_a_model_that_never_lacks_jobs_lets_others_have_a_worker(threads):
    workers, ran = Workers(threads), []

    async def main():
        loop, further = asyncio.get_running_loop(), []

        def ready(name):
            """Make a model that is given two jobs with every run, so that some are always ready; not for ever."""

            def run(inputs):
                ran.append(name)
                given = threading.Event()

                def more():
                    if ran.count(name) < 30:
                        further.extend(job(0, 1, 2)() for _ in range(2))
                        for each in further[-2:]:
                            batcher.submit(each)
                    given.set()

                loop.call_soon_threadsafe(more)
                assert given.wait(10)
                return {"y": inputs["x"]}

            batcher = Batcher(run, workers, Concatenation(), max_batch=1, max_runs=1, max_queue=100, cost=0.0)
            return batcher

        for number in range(threads):
            further.append(job(0)())
            ready(number).submit(further[-1])
        other = Doubles()
        other.gate.set()
        one = job(1)()
        Batcher(other.run, workers, Concatenation(), max_batch=1, max_runs=1, max_queue=100, cost=0.0).submit(one)
        await one.future
        before = len(ran)
        await asyncio.wait_for(asyncio.gather(*[each.future for each in further]), 30)
        while len(further) < threads * 59:
            await asyncio.sleep(0.001)
        await asyncio.wait_for(asyncio.gather(*[each.future for each in further]), 30)
        return before, len(further)

    try:
        before, answered = asyncio.run(main())
    finally:
        workers.close()
    assert before <= 4 * threads
    assert answered == len(ran) == threads * 59


def test_out_of_memory_makes_batches_smaller_by_rows(model, run, caplog):
    double = model.run

    def without_memory(inputs):
        found = double(inputs)
        if len(inputs["x"]) > 8:
            raise MemoryError
        return found

    model.run = without_memory
    outcomes, shapes = run(job(0), job(1, 6, 2), job(2, 6, 2), job(3, 1, 2), job(4, 9, 2), max_batch=16)
    assert [len(outcome["y"]) for outcome in outcomes[:4]] == [1, 6, 6, 1]
    assert shapes == [(1, 2), (13, 2), (6, 2), (7, 2), (9, 2)]
    assert "out of memory with 13 rows: batches of up to 6 from now on" in caplog.text
    assert (outcomes[4].reason, outcomes[4].retry_after) == (Reason.NOT_READY, 1)
    assert "no memory" in outcomes[4].detail
