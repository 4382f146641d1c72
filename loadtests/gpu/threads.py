"""Step 5: CUDA graphs asked for by 16 threads at once, while another thread pins memory as a load does."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np

from loadtests.gpu.bench import Bench, Timing
from loadtests.gpu.engine import Model, Tuning, need_cuda, pin
from loadtests.gpu.plan import Plan

_THREADS = 16
_SIZES = (1, 8, 32)
_APART = 1e-3  # of two answers of the same batch
_PINNED = 8 << 20  # bytes


def measure(bench: Bench, plan: Plan) -> None:
    """Time the classifier on two lanes, and compare every answer."""
    need_cuda(plan.device)
    model = Model(Path(plan.root), plan.models[0])
    sizes = _SIZES[:2] if plan.quick else _SIZES
    load = f"{_THREADS} threads, batches {', '.join(map(str, sizes))}"
    for graphs in (False, True):
        way = "2 lanes, CUDA graphs" if graphs else "2 lanes"
        bench.attempt(model.name, way, load, partial(_timed, bench, model, sizes, graphs=graphs))


def _timed(bench: Bench, model: Model, sizes: tuple[int, ...], *, graphs: bool) -> Timing:
    inputs = [model.inputs(size) for size in sizes]
    with model.lanes(sizes, Tuning(cuda_graphs=graphs), 2) as lanes:
        expected = [lanes.run(batch) for batch in inputs]
        turns = count()
        wrong: list[int] = []

        def run() -> None:
            which = next(turns) % len(sizes)
            given = lanes.run(inputs[which])
            if not all(np.allclose(given[name], value, 0, _APART) for name, value in expected[which].items()):
                wrong.append(which)

        with _pinning():
            timing = bench.measure(run, round(sum(sizes) / len(sizes)), _THREADS)
    return replace(timing, note=f"{len(wrong)} of {next(turns)} answers differ from the first")


@contextmanager
def _pinning() -> Iterator[None]:
    """Pin memory and let go of it while the block runs."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.01):
            pin(np.zeros(_PINNED, np.uint8))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
