"""What a model costs on this machine, measured when it is loaded, and what follows: batch size, runs at once, tuning.

`service.models` calls it with sessions and lanes that are made as those that will serve.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from math import inf
from time import perf_counter
from typing import Any, Literal

from msgspec import Struct, structs

from service.arrays import Tensors
from service.engine.assembly import Run
from service.engine.device_errors import BrokenDeviceError
from service.engine.kernels import Kernels
from service.engine.lanes import Lanes, Sample
from service.engine.providers import Tuning
from service.engine.widths import WideRun, seconds_of

logger = logging.getLogger(__name__)
CPU_SIZES = (1, 4)
GPU_SIZES = (1, 2, 4, 8, 16, 32)
_TUNING_SIZES = (1, 8)  # the larger one is timed, if there is memory for it
_LONG_S = 0.1  # a run that takes longer is all arithmetic: a larger batch would not make it cheaper
_AROUND_S = 0.0005  # to begin a run and to hand its answers over
_RUNS = 8  # for each lane, to time how many pay
WORTH = 0.95  # more rows or runs at once must make a row at least this much cheaper, or they only add latency


class JpegRow(Struct, frozen=True):
    """What JPEGs cost in full batches, decoded on the GPU or by its share of the cores, measured on the golden photos.

    Attributes:
        version: of nvImageCodec.
        gpu_s: seconds an image, decoded, resized and run on the GPU.
        cpu_s: seconds an image, decoded and resized by these cores while the GPU runs the batch before.
        golden: whether the answers to the golden photos are right.
        used: whether the GPU decodes the JPEGs of requests.
    """

    version: str
    gpu_s: float
    cpu_s: float
    golden: bool
    used: bool


class Profile(Struct, frozen=True):
    """What was measured, and what was chosen.

    Attributes:
        seconds: the shortest run, by batch size; 1 is always there.
        max_batch: the most rows in a run.
        max_runs: the most runs at once; on a GPU the number of lanes.
        tuning: of the GPU.
        chosen_by: `measured`, or `setting` where `ZOOSERVE_MAX_BATCH` decided.
        wide: runs on several threads of a CPU, and which of them are used.
        kernels: of a CPU, where there is a choice.
        jpegs: who decodes them, where there is a choice.
        disturbed: others used the machine; the next start measures again, if it is quiet then.
    """

    seconds: dict[int, float]
    max_batch: int
    max_runs: int
    tuning: Tuning
    chosen_by: str
    wide: list[WideRun] = []
    kernels: list[Kernels] = []
    jpegs: JpegRow | None = None
    disturbed: bool = False


def measure(run: Run, sample: Sample, sizes: Sequence[int]) -> dict[int, float]:
    """Run every batch size once to warm it up, then time it twice. Stops after a size that takes long.

    Args:
        run: runs the loaded graph.
        sample: makes its inputs.
        sizes: batch sizes, rising.

    Returns:
        Seconds of the shortest timed run by batch size.
    """
    seconds: dict[int, float] = {}
    for size in sizes:
        if seconds and max(seconds.values()) > _LONG_S:
            break
        inputs = sample(size)
        try:
            run(inputs)
            seconds[size] = min(seconds_of(run, inputs) for _ in range(2))
        except MemoryError:
            if not seconds:
                raise
            break
    return seconds


def best_batch(seconds: dict[int, float], prefer: Literal["latency", "throughput"] = "latency") -> int:
    """Pick the batch size.

    Args:
        seconds: of a run, by batch size.
        prefer: `latency`: the smallest for which no larger one makes a row noticeably cheaper; `throughput`: that whose
            rows are cheapest, with what a run costs besides.
    """
    if prefer == "throughput":
        return min(sorted(seconds), key=lambda size: (seconds[size] + _AROUND_S) / size)
    best = 1
    for size in sorted(seconds):
        if seconds[size] / size < WORTH * seconds[best] / best:
            best = size
    return best


def best_lanes(lanes: Lanes, inputs: Tensors, most: int) -> int:
    """Pick the number of lanes: add one after the other for as long as more runs of `inputs` end in the same time.

    Args:
        lanes: one or more, warm.
        inputs: of a size that they know.
        most: how many to try.
    """
    best, best_time = lanes.count, inf
    while True:
        start = perf_counter()
        for future in [lanes.begin(inputs) for _ in range(lanes.count * _RUNS)]:
            future.result()
        each = (perf_counter() - start) / (lanes.count * _RUNS)
        if each >= WORTH * best_time:
            return best
        best, best_time = lanes.count, each
        if best == most:
            return best
        try:
            lanes.add()
        except MemoryError:
            return best


def best_tuning(
    make: Callable[[Tuning, Sequence[int]], Lanes], sample: Sample, first: Tuning, steps: Sequence[Mapping[str, Any]]
) -> Tuning:
    """Pick a GPU's options: a step that makes a batch quicker is kept, and what does not work is left out.

    Args:
        make: makes the lanes of a tuning, none yet, for batch sizes.
        sample: makes their inputs.
        first: where the steps begin.
        steps: fields of `Tuning` to change, one step after the other.

    Raises:
        Exception: the first does not work.
        BrokenDeviceError: the GPU is lost.
    """
    best, best_time, size = first, inf, 0
    for step in ({}, *steps):
        tuning = structs.replace(best, **step)
        try:
            with make(tuning, _TUNING_SIZES) as lanes:
                lanes.add()
                size = size or lanes.sizes[-1]
                inputs = sample(min(size, lanes.sizes[-1]))
                seconds = min(seconds_of(lanes.run, inputs) for _ in range(5))
                if lanes.sizes[-1] < size:  # a smaller batch is quicker, and no better
                    seconds = inf
        except Exception as error:
            if not step or isinstance(error, BrokenDeviceError):
                raise
            logger.info("%s does not work here: %s", tuning, str(error))
            continue
        if seconds < WORTH * best_time:
            best, best_time = tuning, seconds
    return best
