"""What a model costs on this machine, measured when it is loaded, and what follows: batch size, runs at once, tuning.

`service.models` calls it with the very session that will serve.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any, Protocol

from msgspec import Struct, structs

from service.engine.binding import Tensors
from service.engine.device_errors import BrokenDeviceError
from service.engine.lanes import Lanes
from service.engine.providers import Tuning
from service.engine.widths import WideRun

logger = logging.getLogger(__name__)
CPU_SIZES = (1, 4)
GPU_SIZES = (1, 2, 4, 8, 16, 32, 64)
_LONG_S = 0.1  # a run that takes longer is all arithmetic: a larger batch would not make it cheaper
_WORTH = 0.95  # more rows or runs at once must make a row at least this much cheaper, or they only add latency

_QUICKER = 0.9  # a smaller batch must take at most this share of the next larger one's time to get a session
_REPEATS = 5
_CHANGES: Sequence[Mapping[str, Any]] = (  # each is kept where it makes a run noticeably quicker
    {"cudnn_search": "EXHAUSTIVE"},
    {"nhwc": True},
    {"fuse_bias": True},
    {"cuda_graphs": True},
)

Sample = Callable[[int], Tensors]
"""Makes inputs of so many rows to measure with."""


class Runs(Protocol):
    """A session, or lanes."""

    def run(self, inputs: Tensors) -> Tensors:
        """Compute the outputs of a batch."""


class Profile(Struct, frozen=True):
    """What was measured, and what was chosen.

    Attributes:
        seconds: the shortest run, by batch size; 1 is always there.
        max_batch: the most rows in a run.
        max_runs: the most runs at once; on a GPU, its lanes.
        tuning: of the GPU.
        chosen_by: `measured`, or `setting` where `ZOOSERVE_MAX_BATCH` decided.
        wide: runs on several threads of a CPU, and which of them are used.
        sizes: batch sizes that have a session of their own on a GPU.
    """

    seconds: dict[int, float]
    max_batch: int
    max_runs: int
    tuning: Tuning
    chosen_by: str
    wide: list[WideRun] = []
    sizes: tuple[int, ...] = ()


def measure(session: Runs, sample: Sample, sizes: Sequence[int], *, repeats: int = 2) -> dict[int, float]:
    """Run every batch size once to warm it up, then time it. Stops after a size that takes long.

    Args:
        session: what runs the graph.
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
    return seconds


def best_batch(seconds: dict[int, float]) -> int:
    """Pick the batch size: the smallest for which no larger one makes a row noticeably cheaper."""
    best = 1
    for size in sorted(seconds):
        if seconds[size] / size < _WORTH * seconds[best] / best:
            best = size
    return best


def best_tuning(load: Callable[[Tuning], Lanes], sample: Sample, size: int = 8) -> Tuning:
    """Pick a GPU's options by timing batches of `size`, one option after the other; what does not work is left out.

    Args:
        load: makes a lane with a session for batches of `size`.
        sample: makes inputs.
        size: rows.

    Raises:
        Exception: what the first options failed with.
    """
    best = Tuning("HEURISTIC")
    best_time = _time_tuning(load, sample, best, size)
    for change in _CHANGES:
        tuning = structs.replace(best, **change)
        try:
            seconds = _time_tuning(load, sample, tuning, size)
        except BrokenDeviceError:
            raise
        except Exception as error:
            logger.info("%s does not work here: %s", tuning, error)
            continue
        if seconds < _WORTH * best_time:
            best, best_time = tuning, seconds
    return best


def _time_tuning(load: Callable[[Tuning], Lanes], sample: Sample, tuning: Tuning, size: int) -> float:
    lanes, inputs = load(tuning), sample(size)
    try:
        return min(_time(lanes, inputs) for _ in range(_REPEATS))
    finally:
        lanes.close(lanes.count)


def best_sizes(seconds: dict[int, float], largest: int) -> tuple[int, ...]:
    """Pick the batch sizes that get a session: 1, the largest, and those that are noticeably quicker than the next.

    A smaller batch is padded to the next size, so a size that saves no time needs no session.
    """
    kept = [largest]
    for size in sorted((size for size in seconds if size < largest), reverse=True):
        if size == 1 or seconds[size] < _QUICKER * seconds[kept[0]]:
            kept.insert(0, size)
    return tuple(kept)


def add_lanes(lanes: Lanes, inputs: Tensors, most: int, *, repeats: int = 8) -> None:
    """Add lanes for as long as each lets the GPU do noticeably more batches of these inputs."""
    best = _pace(lanes, inputs, repeats)
    while lanes.count < most and lanes.add():
        pace = _pace(lanes, inputs, repeats)
        if pace > _WORTH * best:
            lanes.close(1)
            return
        best = pace


def _pace(lanes: Lanes, inputs: Tensors, repeats: int) -> float:
    """Seconds per batch while every lane has work."""
    with ThreadPoolExecutor(2 * lanes.count) as pool:
        list(pool.map(lanes.run, [inputs] * lanes.count))
        start = perf_counter()
        list(pool.map(lanes.run, [inputs] * (lanes.count * repeats)))
        return (perf_counter() - start) / (lanes.count * repeats)


def _time(session: Runs, inputs: Tensors) -> float:
    start = perf_counter()
    session.run(inputs)
    return perf_counter() - start
