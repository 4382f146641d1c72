"""Whose kernels compute a model on a CPU: ONNX Runtime's own, or those of a plug-in that is installed, as measured."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import NamedTuple

from msgspec import Struct, structs

from service.arrays import Tensors
from service.engine.assembly import Run

_FASTER = 0.95  # a plug-in must take at most this share of the time, alone and on busy cores
_ROUNDS = 5


class Kernels(Struct, frozen=True):
    """One provider's kernels, measured.

    Attributes:
        provider: of ONNX Runtime.
        version: of a plug-in; of ONNX Runtime's own kernels it is "".
        alone_s: the shortest run of one image or row, on as many threads as pay.
        busy_s: the same, divided by the runs that were side by side, one on each core.
        golden: whether the answers to the golden inputs are right.
        used: whether it serves.
    """

    provider: str
    version: str
    alone_s: float
    busy_s: float
    golden: bool
    used: bool = False


class Candidate(NamedTuple):
    """Loaded kernels.

    Attributes:
        provider, version, golden: as of `Kernels`.
        alone: runs on as many threads as pay.
        narrow: runs on the calling thread.
    """

    provider: str
    version: str
    golden: bool
    alone: Run
    narrow: Run


def measure_kernels(candidates: Sequence[Candidate], inputs: Tensors, cores: int) -> list[Kernels]:
    """Measure candidates in turns, and choose.

    Args:
        candidates: ONNX Runtime's own kernels first; they are used where no other is faster in both ways and right.
        inputs: of one image or row.
        cores: that the runs of a busy server share.

    Returns:
        A row for each.
    """
    alone: list[list[float]] = [[] for _ in candidates]
    busy: list[list[float]] = [[] for _ in candidates]
    with ThreadPoolExecutor(cores) as threads:
        for candidate in candidates:  # a thread's first run is not like the others
            candidate.alone(inputs)
            list(threads.map(candidate.narrow, [inputs] * cores))
        for _ in range(_ROUNDS):
            for number, candidate in enumerate(candidates):
                start = perf_counter()
                candidate.alone(inputs)
                middle = perf_counter()
                list(threads.map(candidate.narrow, [inputs] * (2 * cores)))
                alone[number].append(middle - start)
                busy[number].append((perf_counter() - middle) / (2 * cores))
    rows = [
        Kernels(candidate.provider, candidate.version, min(one), min(many), candidate.golden)
        for candidate, one, many in zip(candidates, alone, busy, strict=True)
    ]
    own, *others = rows
    better = [
        row
        for row in others
        if row.golden and row.alone_s <= _FASTER * own.alone_s and row.busy_s <= _FASTER * own.busy_s
    ]
    best = min(better, key=lambda row: row.busy_s, default=own)
    return [structs.replace(row, used=row is best) for row in rows]
