"""How many images all cores decode and resize, by `service.vision`: what a GPU can be fed with."""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from time import perf_counter

from loadtests.gpu.bench import Bench, Timing
from loadtests.percentiles import percentile
from service.vision.resize import prepare
from zoo.card import Recipe

__all__ = ["decode", "prepare"]
_PATIENCE = 60.0  # seconds that all processes get to start
_barrier: Barrier | None = None  # of a worker process


def decode(bench: Bench, name: str, recipe: Recipe, jpeg: bytes) -> None:
    """Time one thread, as many threads as cores, and as many processes."""
    cores = len(os.sched_getaffinity(0))
    for threads in sorted({1, cores}):
        bench.attempt(name, "decode and resize", f"threads {threads}", _threads(bench, jpeg, recipe, threads))
    bench.attempt(name, "decode and resize", f"processes {cores}", _processes(bench, jpeg, recipe, cores))


def _threads(bench: Bench, jpeg: bytes, recipe: Recipe, count: int) -> Callable[[], Timing]:
    return lambda: bench.measure(lambda: prepare(jpeg, recipe, exact=False), 1, count)


def _processes(bench: Bench, jpeg: bytes, recipe: Recipe, count: int) -> Callable[[], Timing]:
    def work() -> Timing:
        spawn = get_context("spawn")
        barrier = spawn.Barrier(count)
        with ProcessPoolExecutor(count, mp_context=spawn, initializer=_join, initargs=(barrier,)) as pool:
            jobs = [pool.submit(_loop, jpeg, recipe, bench.seconds) for _ in range(count)]
            times = [job.result() for job in jobs]
        together = [1000 * lap for laps in times for lap in laps]
        return Timing(sum(len(laps) / sum(laps) for laps in times), percentile(together, 50), percentile(together, 99))

    return work


def _join(barrier: Barrier) -> None:
    global _barrier  # noqa: PLW0603 - how a pool's process is given what cannot be sent to it
    _barrier = barrier


def _loop(jpeg: bytes, recipe: Recipe, seconds: float) -> list[float]:
    """In a process of its own: decode for so long, from the same moment on as the others. Returns seconds of each."""
    prepare(jpeg, recipe, exact=False)
    if _barrier is not None:
        _barrier.wait(_PATIENCE)
    laps = []
    end = perf_counter() + seconds
    while (start := perf_counter()) < end:
        prepare(jpeg, recipe, exact=False)
        laps.append(perf_counter() - start)
    return laps
