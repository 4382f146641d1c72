"""Lanes: the threads of a GPU. Sessions are fakes or the CPU's here; `test_cuda_threads` has the real ones."""

import asyncio
import gc
import threading
import weakref

import numpy as np
import pytest

from service.engine.assembly import Concatenation, ImageBuffer, ImageRows
from service.engine.batcher import Batcher
from service.engine.lanes import Lanes
from service.engine.workers import Workers
from service.errors import Reason, RequestError
from tests.service.engine.test_batcher import job, outcome, until


class Fake:
    """Doubles its images. Notes each run with its thread; holds a run while `gate` is closed."""

    def __init__(self, size: int | None, seen: list, gate: threading.Event, memory: int = 1000) -> None:
        if size is not None and size > memory:
            raise MemoryError("CUDA failure 2: out of memory")
        self.size, self.seen, self.gate, self.provider = size, seen, gate, "fake"
        self.thread = threading.get_ident()

    def bind(self) -> None:
        assert threading.get_ident() == self.thread

    def run(self, inputs):
        images = inputs["images"]
        self.seen.append((threading.get_ident(), self.size, len(images)))
        assert threading.get_ident() == self.thread, "a session was run on another thread than its own"
        assert self.gate.wait(10)
        if 13 in images:
            raise ValueError("13 cannot be computed")
        if self.size is None and len(images) > 4:
            raise MemoryError("CUDA failure 2: out of memory")
        return {"twice": images[:, 0, 0, 0].astype(np.int64) * 2}


@pytest.fixture
def gate():
    gate = threading.Event()
    gate.set()
    yield gate
    gate.set()


def images(*values: int) -> dict[str, np.ndarray]:
    return {"images": np.array(values, np.uint8).reshape(-1, 1, 1, 1) * np.ones((1, 1, 1, 3), np.uint8)}


@pytest.mark.parametrize(
    ("sizes", "rows", "used"),
    [
        ((1, 4, 8), 1, [1]),
        ((1, 4, 8), 2, [4]),
        ((1, 4, 8), 8, [8]),
        ((1, 4, 8), 19, [8, 8, 4]),
        ((), 3, [None]),
    ],
)
def test_a_batch_is_padded_to_the_next_size_or_run_in_parts(gate, sizes, rows, used):
    seen = []
    lanes = Lanes(lambda size: Fake(size, seen, gate), sizes)
    values = range(20, 20 + rows)
    assert lanes.run(images(*values))["twice"].tolist() == [2 * value for value in values]
    assert [size for _, size, _ in seen] == used
    assert all(size in (None, length) for _, size, length in seen)


@pytest.mark.parametrize(("memory", "sizes"), [(1000, (1, 4, 8)), (7, (1, 4)), (1, (1,))])
def test_sizes_for_which_there_is_no_memory_are_left_out(gate, memory, sizes):
    assert Lanes(lambda size: Fake(size, [], gate, memory), (1, 4, 8)).sizes == sizes


def test_without_memory_for_one_row_there_are_no_lanes(gate):
    with pytest.raises(MemoryError):
        Lanes(lambda size: Fake(size, [], gate, 0), (1, 4, 8))


def test_another_lane_has_the_memory_that_is_left(gate):
    memory = iter([1000] * 3 + [4] * 3 + [0])
    lanes = Lanes(lambda size: Fake(size, [], gate, next(memory)), (1, 4, 8))
    assert lanes.add()
    assert (lanes.count, lanes.sizes) == (2, (1, 4))
    assert not lanes.add()
    assert lanes.count == 2


@pytest.mark.parametrize("error", [ValueError("wrong"), RuntimeError("CUDA failure 999: unknown error")])
def test_what_a_session_cannot_be_made_with_is_raised(error):
    def load(_):
        raise error

    with pytest.raises(type(error), match=str(error)):
        Lanes(load, (1,))


def test_lanes_end_with_their_owner(gate):
    lanes = Lanes(lambda size: Fake(size, [], gate), (1,))
    lanes.add()
    threads = [thread for thread in threading.enumerate() if thread.name == "gpu-lane"]
    gone = weakref.ref(lanes)
    del lanes
    gc.collect()
    assert gone() is None
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()


def batcher(lanes: Lanes, workers: Workers, *, tensors: bool = False, **settings) -> Batcher:
    largest = max(lanes.sizes, default=4)
    assembly = Concatenation() if tensors else ImageRows(ImageBuffer(64, largest, (1, 1, 3)), lanes.sizes)
    given = {"max_batch": largest, "max_runs": lanes.count, "max_queue": 100, "cost": 0.001} | settings
    return Batcher(lanes.run, workers, assembly, lanes=lanes, **given)


async def collected(queue: Batcher, seen: list, gate: threading.Event, jobs) -> None:
    """Submit jobs so that the first is a batch alone, and all others are ready when its run ends."""
    gate.clear()
    queue.submit(jobs[0])
    await until(lambda: seen)
    for one in jobs[1:]:
        queue.submit(one)
    await until(lambda: len(queue._assembly._ready) == len(jobs) - 1)
    gate.set()


def test_lanes_run_workers_prepare_and_finish(gate):
    async def main():
        seen, answered = [], []
        lanes, workers = Lanes(lambda size: Fake(size, seen, gate), (1, 4, 16)), Workers(2)
        queue = batcher(lanes, workers)
        jobs = [job(value) for value in range(20, 45)]
        for one in jobs:
            answer = one.input.answer
            one.input.answer = lambda *given, answer=answer: answered.append(threading.get_ident()) or answer(*given)
        await collected(queue, seen, gate, jobs)
        assert [await one.future for one in jobs] == [2 * value for value in range(20, 45)]
        assert [size for _, size, _ in seen] == [1, 16, 16]
        assert len({thread for thread, _, _ in seen}) == 1
        assert not {thread for thread, _, _ in seen} & set(answered)
        assert [one.batch_size for one in jobs] == [1] + [16] * 16 + [8] * 8
        assert queue.pending == queue._runs == 0
        workers.close()

    asyncio.run(main())


def test_one_that_cannot_be_computed_fails_alone(gate):
    async def main():
        seen = []
        lanes, workers = Lanes(lambda size: Fake(size, seen, gate), (1, 2, 4)), Workers(2)
        queue = batcher(lanes, workers)
        jobs = [job(value) for value in (20, 21, 13, 22, 23)]
        await collected(queue, seen, gate, jobs)
        answers = [await outcome(one) for one in jobs]
        assert isinstance(answers.pop(2), ValueError)
        assert answers == [40, 42, 44, 46]
        assert len(queue._assembly._buffer._free) == 64
        workers.close()

    asyncio.run(main())


def test_without_memory_for_a_run_batches_become_smaller(gate):
    async def main():
        class Greedy(Fake):
            def run(self, inputs):
                if len(inputs["images"]) > 2:
                    raise MemoryError("CUDA failure 2: out of memory")
                return super().run(inputs)

        seen = []
        lanes, workers = Lanes(lambda size: Greedy(size, seen, gate), (1, 2, 4, 8)), Workers(2)
        queue = batcher(lanes, workers)
        jobs = [job(value) for value in range(20, 29)]
        await collected(queue, seen, gate, jobs)
        assert [await one.future for one in jobs] == [2 * value for value in range(20, 29)]
        assert queue.max_batch == 2
        workers.close()

    asyncio.run(main())


def test_a_run_that_takes_too_long_is_refused_and_the_lane_goes_on(gate):
    async def main():
        lanes, workers = Lanes(lambda size: Fake(size, [], gate), (1,)), Workers(2, 0.2)
        queue = batcher(lanes, workers)
        threads = len(workers._threads)
        gate.clear()
        stuck = job(20)
        queue.submit(stuck)
        async with asyncio.timeout(5):
            refused = await outcome(stuck)
        assert isinstance(refused, RequestError)
        assert refused.reason is Reason.DEADLINE
        assert workers.longest() > 0.2, "the process is not well while its GPU does not answer"
        assert len(workers._threads) == threads, "no worker stands in for a lane"
        gate.set()
        after = job(21)
        queue.submit(after)
        assert await after.future == 42
        await until(lambda: queue.pending == 0)
        assert workers.longest() < 0.2
        workers.close()

    asyncio.run(main())
