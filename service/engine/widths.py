"""On how many threads one run of a model pays on this CPU, measured when the model is loaded.

A run on several threads needs a session of its own, with its own copy of the weights. So only numbers of threads that
make a run clearly shorter get one. `service.models` measures; `Workers.cores` chooses among them at each run.
"""

from collections.abc import Callable, Sequence
from time import perf_counter

from msgspec import Struct, structs

from service.arrays import Tensors
from service.engine.assembly import Run
from service.engine.memory import resident
from service.engine.session import Session, Width

_SHORT_S = 0.0005  # to wake a thread takes a tenth of that: a run that is as short is not shared
_PAYS = 0.9  # a run on more threads must take at most this share of the time on fewer
_REPEATS = 5


class WideRun(Struct, frozen=True):
    """One way to compute a run on several threads, measured.

    Attributes:
        width: threads, and whether they spin.
        seconds: the shortest run of one row or image.
        narrow_seconds: the same on one thread, measured in turns with it.
        memory: bytes by which the process grew for its session, at least the size of the graph.
        used: whether runs use it.
    """

    width: Width
    seconds: float
    narrow_seconds: float
    memory: int
    used: bool


def thread_counts(cores: int) -> list[int]:
    """Numbers of threads to try: 2, 4, 8, ... and as many as there are cores."""
    counts = [2**i for i in range(1, cores.bit_length()) if 2**i < cores]
    return [*counts, cores] if cores > 1 else []


def measure_widths(
    narrow: Session,
    load: Callable[[Width], Session],
    inputs: Tensors,
    counts: Sequence[int],
    graph_bytes: int,
    limit: float,
    *,
    chosen: bool = False,
) -> list[WideRun]:
    """Measure runs on several threads, and choose.

    Args:
        narrow: the session of one thread.
        load: makes a session of the graph.
        inputs: of one row or image.
        counts: numbers of threads, rising; see `thread_counts`.
        graph_bytes: size of the graph.
        limit: bytes that the sessions for several threads may take together.
        chosen: the numbers of threads are used, whatever is measured.

    Returns:
        A row for each width that was tried: more threads, for as long as they pay.
    """
    if not counts:
        return []
    narrow.run(inputs)
    if not chosen and min(seconds_of(narrow.run, inputs) for _ in range(2)) < _SHORT_S:
        return []
    rows: list[WideRun] = []
    best, left = 1.0, limit
    for threads in counts:
        tried = [_measure(load, Width(threads, spins), narrow, inputs, graph_bytes) for spins in (False, True)]
        fastest = min(tried, key=lambda row: row.seconds / row.narrow_seconds)
        share = fastest.seconds / fastest.narrow_seconds
        used = chosen or (share <= _PAYS * best and fastest.memory <= left)
        rows += [structs.replace(row, used=used and row is fastest) for row in tried]
        if not used:
            break
        best, left = share, left - fastest.memory
    return rows


def _measure(
    load: Callable[[Width], Session], width: Width, narrow: Session, inputs: Tensors, graph_bytes: int
) -> WideRun:
    before = resident()
    wide = load(width)
    wide.run(inputs)
    memory = max(resident() - before, graph_bytes)
    times = [(seconds_of(wide.run, inputs), seconds_of(narrow.run, inputs)) for _ in range(_REPEATS)]
    return WideRun(width, min(pair[0] for pair in times), min(pair[1] for pair in times), memory, used=False)


def used_widths(rows: Sequence[WideRun]) -> list[Width]:
    """Return the widths that runs use, besides one thread; rising."""
    return [row.width for row in rows if row.used]


def seconds_of(run: Run, inputs: Tensors) -> float:
    """Return how long one run takes."""
    start = perf_counter()
    run(inputs)
    return perf_counter() - start
