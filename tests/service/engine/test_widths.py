"""On how many threads a run is computed: what is measured to pay, and what the work under way leaves free."""

import asyncio
import contextlib
import random
import threading
import time

import numpy as np
import pytest

from service.engine.assembly import ImageBuffer, ImageRows
from service.engine.batcher import Batcher
from service.engine.session import NARROW, Session, Width
from service.engine.widths import measure_widths, thread_counts, used_widths
from service.engine.workers import Workers
from tests.service.engine.test_batcher import job


@pytest.mark.parametrize(
    ("cores", "counts"), [(1, []), (2, [2]), (3, [2, 3]), (4, [2, 4]), (6, [2, 4, 6]), (16, [2, 4, 8, 16])]
)
def test_numbers_of_threads_to_try(cores, counts):
    assert thread_counts(cores) == counts


class Timed:
    """A session whose runs take given times, on a clock that all of them share."""

    now = 0.0

    def __init__(self, seconds: float, width: Width = NARROW) -> None:
        self.seconds, self.width = seconds, width

    def run(self, _: object) -> None:
        Timed.now += self.seconds


@pytest.mark.parametrize(
    ("one", "others", "limit", "used"),
    [
        (0.040, {2: 0.021, 4: 0.012, 8: 0.011}, 1e9, [2, 4]),  # eight threads are hardly quicker than four
        (0.040, {2: 0.038, 4: 0.010, 8: 0.010}, 1e9, []),  # two do not pay: more are not tried
        (0.040, {2: 0.021, 4: 0.012, 8: 0.008}, 250, [2, 4]),  # sessions of 100 bytes
        (0.040, {2: 0.021, 4: 0.012, 8: 0.008}, 0, []),
        (0.0004, {2: 0.0001, 4: 0.0001, 8: 0.0001}, 1e9, []),  # too short to share
    ],
)
def test_more_threads_are_used_where_they_pay_and_their_memory_is_allowed(monkeypatch, one, others, limit, used):
    monkeypatch.setattr("service.engine.widths.perf_counter", lambda: Timed.now)
    monkeypatch.setattr("service.engine.widths.resident", lambda: 0)
    rows = measure_widths(Timed(one), lambda width: Timed(others[width.threads], width), {}, [2, 4, 8], 100, limit)
    assert [width.threads for width in used_widths(rows)] == used
    assert all(row.memory == 100 for row in rows)


@pytest.mark.parametrize(("spinning", "spins"), [(0.5, True), (2.0, False)])
def test_threads_spin_where_that_is_quicker(monkeypatch, spinning, spins):
    monkeypatch.setattr("service.engine.widths.perf_counter", lambda: Timed.now)
    rows = measure_widths(
        Timed(0.04), lambda width: Timed(0.02 * (spinning if width.spins else 1), width), {}, [2], 100, 1e9
    )
    assert used_widths(rows) == [Width(2, spins)]
    assert len(rows) == 2, "what was not chosen is shown, too"


def test_a_number_that_was_chosen_is_used_whatever_it_brings(monkeypatch):
    monkeypatch.setattr("service.engine.widths.perf_counter", lambda: Timed.now)
    rows = measure_widths(Timed(0.04), lambda width: Timed(0.09, width), {}, [3], 100, 0, chosen=True)
    assert [width.threads for width in used_widths(rows)] == [3]


@pytest.mark.parametrize("width", [Width(2), Width(2, spins=True), Width(3)])
def test_answers_are_those_of_one_thread(models, width):
    graph = models / "mobilenet_v2/1/model.onnx"
    images = {"images": np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)}
    one, wide = Session(graph, "cpu"), Session(graph, "cpu", width=width)
    assert wide.run(images)["probabilities"] == pytest.approx(one.run(images)["probabilities"], abs=1e-6)


class Engine:
    """Batches of one image whose runs are held, so that it is seen how many threads each was given.

    Args:
        workers: threads, and cores.
        widths: numbers of threads that a run may have.
    """

    def __init__(self, workers: Workers, widths: tuple[int, ...]) -> None:
        self.given: list[int] = []
        self.under_way = self.highest = 0
        self.gate = threading.Event()
        self._lock = threading.Lock()
        self.queue = Batcher(
            self.computed_on(1),
            workers,
            ImageRows(ImageBuffer(64, 1, (1, 1, 3))),
            max_batch=1,
            max_runs=workers.size,
            max_queue=1000,
            cost=0.001,
            wide={threads: self.computed_on(threads) for threads in widths if threads > 1},
        )

    def computed_on(self, threads: int):
        def run(inputs):
            with self._lock:
                self.given.append(threads)
                self.under_way += threads
                self.highest = max(self.highest, self.under_way)
            assert self.gate.wait(10)
            time.sleep(0.001)
            with self._lock:
                self.under_way -= threads
            return {"twice": inputs["images"][:, 0, 0, 0].astype(np.int64) * 2}

        return run


@pytest.mark.parametrize(
    ("cores", "widths", "clients", "threads"),
    [
        (4, (1, 2, 4), 1, 4),
        (4, (1, 2, 4), 2, 2),
        (4, (1, 2, 4), 3, 1),
        (4, (1, 4), 2, 1),
        (4, (1,), 1, 1),
        (2, (1, 2), 2, 1),
        (1, (1,), 1, 1),
    ],
)
def test_clients_that_ask_one_image_after_another_share_the_cores_evenly(cores, widths, clients, threads):
    async def main():
        workers = Workers(cores)
        engine = Engine(workers, widths)
        engine.gate.set()

        async def client():
            for value in range(20):
                one = job(value)
                engine.queue.submit(one)
                assert await one.future == 2 * value

        await asyncio.gather(*(client() for _ in range(clients)))
        settled = engine.given[2 * clients : -2 * clients]  # not the first ones and the last ones: fewer are under way
        assert max(set(settled), key=settled.count) == threads
        workers.close()

    asyncio.run(main())


def test_runs_never_have_more_threads_than_there_are_cores():
    async def main():
        workers = Workers(4)
        engine = Engine(workers, (1, 2, 4))
        engine.gate.set()
        chance = random.Random(0)
        for _ in range(60):
            jobs = [job(value) for value in range(chance.randint(1, 6))]
            for one in jobs:
                engine.queue.submit(one)
            await asyncio.sleep(chance.random() * 0.004)
        assert await jobs[-1].future == 2 * (len(jobs) - 1)
        assert engine.highest <= 4
        assert {1, 2, 4} == set(engine.given)
        workers.close()

    asyncio.run(main())


def test_runs_are_narrower_while_a_model_is_loaded():
    async def main():
        workers = Workers(4)
        engine = Engine(workers, (1, 2, 3, 4))
        engine.gate.set()

        async def width():
            one = job(1)
            engine.queue.submit(one)
            await one.future
            return engine.given[-1]

        with workers.leaving_a_core():
            assert await width() == 3
            with contextlib.ExitStack() as loads:
                for _ in range(9):
                    loads.enter_context(workers.leaving_a_core())
                assert await width() == 1, "a run has a core whatever is loaded"
        assert await width() == 4
        workers.close()

    asyncio.run(main())


def test_a_run_waits_for_a_core_and_does_not_count_as_slow_meanwhile():
    async def main():
        workers = Workers(2, 0.3)
        engine = Engine(workers, (1, 2))
        first, second = job(1), job(2)
        engine.queue.submit(first)
        while engine.given != [2]:
            await asyncio.sleep(0.001)
        engine.queue.submit(second)
        await asyncio.sleep(0.1)
        assert engine.given == [2], "both cores are taken"
        engine.gate.set()
        assert [await first.future, await second.future] == [2, 4]
        assert engine.given == [2, 1], "they were under way together"
        workers.close()

    asyncio.run(main())


def test_the_cores_of_a_run_that_takes_too_long_are_given_to_others():
    async def main():
        workers = Workers(2, 0.2)
        engine = Engine(workers, (1, 2))
        stuck = job(1)
        engine.queue.submit(stuck)
        while engine.given != [2]:
            await asyncio.sleep(0.001)
        other = job(2)
        engine.queue.submit(other)
        while len(engine.given) < 2:
            await asyncio.sleep(0.001)
        engine.gate.set()
        assert await other.future == 4
        assert engine.given == [2, 1]
        workers.close()

    async def bounded():
        async with asyncio.timeout(10):
            await main()

    asyncio.run(bounded())
