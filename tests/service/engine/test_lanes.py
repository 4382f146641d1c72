"""Lanes: which thread does what, sizes, padding, memory that ends, runs that do not. Sessions are fakes on the CPU."""

import asyncio
import gc
import threading
import time
import weakref

import numpy as np
import pytest

from service.engine.assembly import ImageBuffer, ImageRows
from service.engine.batcher import Batcher
from service.engine.lanes import Lanes
from service.engine.pieces import contiguous
from service.engine.workers import Workers
from tests.service.engine.host import Host
from tests.service.engine.test_batcher import job, outcome, ready, until
from tests.service.engine.test_workers import LIMIT, late


class Gpu:
    """Makes sessions that double an image's first value, and remembers what was done on which thread.

    Attributes:
        no_memory: (stage, size) at which there is none; stages are load, run and capture.
        events: stage, size and thread.
        seconds: of a run.
    """

    def __init__(self, *no_memory: tuple[str, int]) -> None:
        self.no_memory = set(no_memory)
        self.events: list[tuple[str, int, str]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.seconds = 0.0

    def load(self, size, copies):
        assert (copies is None) is (size == 0)
        self.note("load", size)
        return Fake(self, size)

    def note(self, stage: str, size: int) -> None:
        self.events.append((stage, size, threading.get_ident()))
        if (stage, size) in self.no_memory:
            raise MemoryError(f"{stage} {size}")

    def lanes(self, sizes=(1, 2, 4), count=1, graphs=False) -> Lanes:
        lanes = Lanes(self.load, sizes, images, graphs=graphs, make_stream=Host)
        for _ in range(count):
            lanes.add()
        return lanes


class Fake:
    def __init__(self, gpu: Gpu, size: int) -> None:
        self.gpu, self.size = gpu, size

    def run(self, inputs, fill=None):
        rows = np.concatenate(contiguous(inputs["images"]))
        assert self.size in (0, len(rows))
        self.gpu.note("run", len(rows))
        assert self.gpu.gate.wait(10)
        time.sleep(self.gpu.seconds)
        return {"twice": rows[:, 0, 0, 0].astype(np.int64) * 2}

    def capture(self, inputs):
        self.gpu.note("capture", self.size)

    def __del__(self):
        self.gpu.events.append(("free", self.size, threading.get_ident()))


def images(rows: int) -> dict[str, np.ndarray]:
    return {"images": np.arange(rows, dtype=np.uint8).reshape(rows, 1, 1, 1).repeat(3, axis=3)}


def queue_of(lanes: Lanes, workers: Workers, **given) -> Batcher:
    settings = {"max_batch": lanes.sizes[-1], "max_runs": lanes.count, "max_queue": 1000, "cost": 0.001} | given
    rows = ImageRows(ImageBuffer(settings.pop("places", 64), 64, (1, 1, 3)), lanes.sizes)
    return Batcher(lanes.run, workers, rows, lanes=lanes, **settings)


@pytest.fixture
def workers():
    workers = Workers(2)
    yield workers
    workers.close()


@pytest.mark.parametrize("graphs", [False, True])
def test_a_lane_does_everything_on_its_thread_in_order(graphs):
    gpu = Gpu()
    with gpu.lanes((1, 2), graphs=graphs) as lanes:
        assert lanes.run(images(2))["twice"].tolist() == [0, 2]
    stages = ["load", "run", "run", *(["capture", "run"] if graphs else [])]
    warm = [(stage, size) for size in (1, 2) for stage in stages]
    assert [event[:2] for event in gpu.events[: len(warm) + 1]] == [*warm, ("run", 2)]
    assert sorted(event[:2] for event in gpu.events[len(warm) + 1 :]) == [("free", 1), ("free", 2)]
    assert len({thread for _, _, thread in gpu.events}) == 1
    assert gpu.events[0][2] != threading.get_ident()


@pytest.mark.parametrize(
    ("rows", "runs"), [(1, [1]), (2, [2]), (3, [4]), (4, [4]), (5, [4, 1]), (7, [4, 4]), (11, [4, 4, 4])]
)
def test_runs_are_padded_to_sizes_that_are_known(rows, runs):
    gpu = Gpu()
    with gpu.lanes() as lanes:
        gpu.events.clear()
        assert lanes.run(images(rows))["twice"].tolist() == list(range(0, 2 * rows, 2))
        assert [size for _, size, _ in gpu.events] == runs


def test_tensors_of_any_shape_are_run_as_they_are():
    gpu = Gpu()
    with gpu.lanes((), count=2) as lanes:
        assert [event[:2] for event in gpu.events] == [("load", 0)] * 2
        assert len(lanes.run(images(7))["twice"]) == 7


@pytest.mark.parametrize("stage", ["load", "run", "capture"])
@pytest.mark.parametrize(("size", "sizes"), [(4, (1, 2)), (2, (1,)), (1, None)])
def test_without_memory_larger_batches_are_left_out(stage, size, sizes):
    gpu = Gpu((stage, size))
    if sizes is None:
        with pytest.raises(MemoryError, match=f"{stage} 1"):
            gpu.lanes(graphs=True)
        return
    with gpu.lanes(graphs=True, count=2) as lanes:
        assert lanes.sizes == sizes
        assert lanes.count == 2
        assert len(lanes.run(images(5))["twice"]) == 5


@pytest.mark.parametrize("size", [1, 4])
def test_a_further_lane_without_memory_for_all_sizes_takes_none_from_the_others(size):
    gpu = Gpu()
    with gpu.lanes() as lanes:
        gpu.no_memory = {("load", size)}
        with pytest.raises(MemoryError):
            lanes.add()
        assert (lanes.sizes, lanes.count) == ((1, 2, 4), 1)
        assert len(lanes.run(images(4))["twice"]) == 4


def test_what_decodes_jpegs_takes_no_memory_from_batches():
    gpu, fills = Gpu(), []

    def fill(_):
        gpu.no_memory = {(stage, size) for stage in ("load", "run") for size in (1, 2, 4)}
        fills.append(len(gpu.events))
        if len(fills) == 2:
            raise MemoryError
        return lambda _: None

    for decodes in (True, False):
        gpu.no_memory = set()
        with Lanes(gpu.load, (1, 2, 4), images, make_stream=Host, make_fill=fill) as lanes:
            lanes.add()
            assert lanes.sizes == (1, 2, 4)
            assert lanes.decodes is decodes


def test_what_fails_otherwise_is_raised_and_leaves_no_lane(monkeypatch):
    gpu = Gpu()
    lanes = Lanes(gpu.load, (1,), lambda _: {"images": 1 / 0}, make_stream=Host)
    with pytest.raises(ZeroDivisionError):
        lanes.add()
    assert lanes.count == 0


def test_without_memory_for_a_run_batches_become_smaller(workers):
    async def main():
        gpu = Gpu()
        lanes = gpu.lanes()
        queue = queue_of(lanes, workers)
        gpu.no_memory = {("run", 4)}
        assert await answers(queue, range(9), hold=True) == [2 * value for value in range(9)]
        assert queue.max_batch == 2
        gpu.events.clear()
        assert await answers(queue, range(9), hold=True) == [2 * value for value in range(9)]
        assert {size for _, size, _ in gpu.events} <= {1, 2}

    asyncio.run(main())


async def answers(queue: Batcher, values, *, hold: bool = False) -> list[int]:
    """Submit jobs; hold the runs until all but the last are ready."""
    jobs = [job(value) for value in values]
    if hold:
        queue._runs += queue.max_runs
    for one in jobs[:-1]:
        queue.submit(one)
    if hold:
        await until(lambda: ready(queue) == len(jobs) - 1)
        queue._runs -= queue.max_runs
    queue.submit(jobs[-1])
    return [await one.future for one in jobs]


@pytest.mark.parametrize("count", [1, 3])
def test_each_job_gets_its_own_answer_from_a_worker(workers, count):
    async def main():
        gpu = Gpu()
        queue = queue_of(gpu.lanes(count=count), workers)
        jobs = [job(value % 100) for value in range(300)]
        threads = set()
        for one in jobs:
            answer = one.input.answer
            one.input.answer = lambda *given, answer=answer: (threads.add(threading.get_ident()), answer(*given))[1]
            queue.submit(one)
        assert [await one.future for one in jobs] == [2 * (value % 100) for value in range(300)]
        lanes = {thread for _, _, thread in gpu.events}
        assert len(lanes) == count
        assert threads <= {thread.ident for thread in workers._threads}
        await until(lambda: queue._runs == queue.pending == 0 and not workers._steps)
        assert len(queue._assembly._buffer._free) == 64

    asyncio.run(main())


def test_more_images_than_rows_are_still_run_in_full_batches(workers):
    """Workers prepare images much quicker than the GPU runs them."""

    async def main():
        gpu = Gpu()
        queue = queue_of(gpu.lanes(), workers, places=10)
        gpu.seconds = 0.005
        gpu.events.clear()
        assert await answers(queue, range(80)) == [2 * value for value in range(80)]
        assert len(gpu.events) < 30

    asyncio.run(main())


def test_a_lane_takes_the_next_batch_while_workers_make_answers(workers):
    async def main():
        gpu = Gpu()
        queue = queue_of(gpu.lanes((1,)), workers)
        release = threading.Event()
        slow, quick = job(1), job(2)
        slow.input.answer = lambda *_: release.wait(10)
        queue.submit(slow)
        queue.submit(quick)
        assert await quick.future == 4
        assert not slow.future.done()
        release.set()
        assert await slow.future

    asyncio.run(main())


def test_an_image_that_fails_its_batch_is_found(workers):
    async def main():
        queue = queue_of(Gpu().lanes(), workers)
        compute = queue._assembly.compute

        def fragile(jobs, run):
            if any(one.input.value == 13 for one in jobs):
                raise ValueError("13")
            return compute(jobs, run)

        queue._assembly.compute = fragile
        jobs = [job(value) for value in (11, 12, 13, 14)]
        for one in jobs:
            queue.submit(one)
        found = [await outcome(one) for one in jobs]
        assert [*found[:2], found[3]] == [22, 24, 28]
        assert isinstance(found[2], ValueError)
        await until(lambda: queue.pending == 0)

    asyncio.run(main())


def test_a_lane_that_is_stuck_is_given_up_and_goes_on_when_it_returns():
    async def main():
        workers, gpu = Workers(2, LIMIT), Gpu()
        queue = queue_of(gpu.lanes(), workers)
        gpu.gate.clear()
        stuck = job(7)
        queue.submit(stuck)
        assert late(await outcome(stuck))
        assert workers.longest() > LIMIT, "liveness sees it"
        assert queue.pending == 1
        assert len(workers._threads) == 2
        waits = job(8)
        queue.submit(waits)
        await until(lambda: ready(queue) == 1)
        gpu.gate.set()
        assert await waits.future == 16
        await until(lambda: queue.pending == 0 and queue._runs == 0)
        assert workers.longest() < LIMIT
        assert len(queue._assembly._buffer._free) == 64
        workers.close()

    asyncio.run(main())


def test_another_lane_serves_while_one_is_stuck():
    async def main():
        workers, gpu = Workers(2, LIMIT), Gpu()
        queue = queue_of(gpu.lanes((1,), count=2), workers)
        gpu.gate.clear()
        stuck = job(7)
        queue.submit(stuck)
        await until(lambda: workers._steps)
        compute, queue._assembly.compute = queue._assembly.compute, lambda jobs, _: {"twice": np.array([16])}
        other = job(8)
        queue.submit(other)
        assert await other.future == 16
        queue._assembly.compute = compute
        assert late(await outcome(stuck))
        gpu.gate.set()
        await until(lambda: queue.pending == 0)
        workers.close()

    asyncio.run(main())


def test_lanes_end_with_their_queue_after_what_was_submitted(workers):
    async def main():
        gpu = Gpu()
        lanes = gpu.lanes(count=2)
        queue = queue_of(lanes, workers)
        gpu.gate.clear()
        jobs = [job(value) for value in range(3)]
        for one in jobs:
            queue.submit(one)
        gone, threads = weakref.ref(queue), lanes._threads
        del queue, lanes
        gc.collect()
        assert gone() is not None, "jobs are under way"
        gpu.gate.set()
        assert [await one.future for one in jobs] == [0, 2, 4]
        del one
        jobs.clear()
        end = time.monotonic() + 5
        while gone() is not None and time.monotonic() < end:
            await asyncio.sleep(0.01)
            gc.collect()
        assert gone() is None
        for thread in threads:
            thread.join(5)
            assert not thread.is_alive()
        assert sum(stage == "free" for stage, _, _ in gpu.events) == 6

    asyncio.run(main())


def test_what_lanes_are_made_with_is_let_go_of():
    class Graph:
        """In place of a graph's bytes."""

    gpu, graph = Gpu(), Graph()
    gone = weakref.ref(graph)
    lanes = Lanes(lambda size, copies, graph=graph: gpu.load(size, copies), (1,), images, make_stream=Host)
    lanes.add()
    lanes.freeze()
    del graph
    gc.collect()
    assert gone() is None
    assert lanes.run(images(1))["twice"].tolist() == [0]
