"""What a model costs on this machine, measured when it is loaded, and what follows: batch size, runs at once, tuning.

`service.models` calls it with the very session that will serve.
"""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

from msgspec import Struct

from service.engine.binding import Tensors
from service.engine.providers import Tuning
from service.engine.session import Session
from service.engine.widths import WideRun

logger = logging.getLogger(__name__)
CPU_SIZES = (1, 4)
GPU_SIZES = (1, 2, 4, 8, 16, 32, 64)
_LONG_S = 0.1  # a run that takes longer is all arithmetic: a larger batch would not make it cheaper
_WORTH = 0.95  # more rows or runs at once must make a row at least this much cheaper, or they only add latency

Sample = Callable[[int], Tensors]
"""Makes inputs of so many rows to measure with."""


class Profile(Struct, frozen=True):
    """What was measured, and what was chosen.

    Attributes:
        seconds: the shortest run, by batch size; 1 is always there.
        max_batch: the most rows in a run.
        max_runs: the most runs at once.
        tuning: of the GPU.
        chosen_by: `measured`, or `setting` where `ZOOSERVE_MAX_BATCH` decided.
        wide: runs on several threads of a CPU, and which of them are used.
    """

    seconds: dict[int, float]
    max_batch: int
    max_runs: int
    tuning: Tuning
    chosen_by: str
    wide: list[WideRun] = []


def measure(session: Session, sample: Sample, sizes: Sequence[int], *, repeats: int = 2) -> dict[int, float]:
    """Run every batch size once to warm it up, then time it. Stops after a size that takes long.

    Args:
        session: the loaded graph.
        sample: makes its inputs.
        sizes: batch sizes, rising.
        repeats: timed runs of each.

    Returns:
        Seconds of the shortest timed run by batch size.
    """
    seconds: dict[int, float] = {}
    for size in sizes:
        if seconds and max(seconds.values()) > _LONG_S:
            break
        inputs = sample(size)
        try:
            session.run(inputs)
            seconds[size] = min(_time(session, inputs) for _ in range(repeats))
        except MemoryError:
            if not seconds:
                raise
            break
    session.shrink(sample(1))  # the largest batch may have taken a gigabyte that the chosen one does not need
    return seconds


def best_batch(seconds: dict[int, float]) -> int:
    """Pick the batch size: the smallest for which no larger one makes a row noticeably cheaper."""
    best = 1
    for size in sorted(seconds):
        if seconds[size] / size < _WORTH * seconds[best] / best:
            best = size
    return best


def best_runs(session: Session, inputs: Tensors, candidates: Sequence[int], *, repeats: int = 8) -> int:
    """Pick how many runs of `inputs` should be under way at once, by measuring their throughput."""
    best, best_time = candidates[0], float("inf")
    for runs in candidates:
        with ThreadPoolExecutor(runs) as pool:
            start = perf_counter()
            list(pool.map(lambda _: session.run(inputs), range(runs * repeats)))
            each = (perf_counter() - start) / (runs * repeats)
        if each < _WORTH * best_time:
            best, best_time = runs, each
    return best


def best_tuning(
    load: Callable[[Tuning], Session], sample: Sample, candidates: Sequence[Tuning], size: int = 8
) -> Tuning:
    """Pick a GPU's options by loading the model with each and timing `size` rows; what does not work is left out.

    Raises:
        Exception: what the last candidate failed with, if all did.
    """
    best, best_time, failure = None, float("inf"), None
    for tuning in candidates:
        try:
            session = load(tuning)
            session.bind((1, size), 1, lambda: None)
            seconds = measure(session, sample, (size,), repeats=5)[size]
        except Exception as error:
            logger.info("%s does not work here: %s", tuning, error)
            failure = error
            continue
        if seconds < _WORTH * best_time:
            best, best_time = tuning, seconds
    if best is None:
        raise failure or ValueError("no candidates")
    return best


def _time(session: Session, inputs: Tensors) -> float:
    start = perf_counter()
    session.run(inputs)
    return perf_counter() - start
