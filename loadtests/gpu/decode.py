"""How many images all cores decode and resize, by `service.vision`: what a GPU can be fed with."""

import os
from collections.abc import Callable
from functools import partial
from time import perf_counter

from loadtests.gpu.bench import Bench, Timing
from loadtests.percentiles import percentile
from loadtests.side_by_side import meet, side_by_side
from service.vision.resize import prepare
from zoo.card import Recipe

__all__ = ["decode", "prepare"]


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
        times = side_by_side([partial(_loop, jpeg, recipe, bench.seconds)] * count)
        together = [1000 * lap for laps in times for lap in laps]
        return Timing(sum(len(laps) / sum(laps) for laps in times), percentile(together, 50), percentile(together, 99))

    return work


def _loop(jpeg: bytes, recipe: Recipe, seconds: float) -> list[float]:
    """In a process of its own: decode for so long, from the same moment on as the others. Returns seconds of each."""
    prepare(jpeg, recipe, exact=False)
    meet()
    laps = []
    end = perf_counter() + seconds
    while (start := perf_counter()) < end:
        prepare(jpeg, recipe, exact=False)
        laps.append(perf_counter() - start)
    return laps
