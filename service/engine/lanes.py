"""Threads that run a model on a GPU, and all that they alone may touch: sessions, buffers, CUDA graphs.

ONNX Runtime keeps CUDA graphs, streams and the handles of cuBLAS and cuDNN by thread, so a run must come from the
thread that warmed up. A lane is such a thread, with a session for each batch size. Workers prepare images and finish
answers; lanes do what is between. Two lanes let one batch be copied while another is computed.
"""

import logging
import threading
import weakref
from bisect import bisect_left
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import SimpleQueue

import numpy as np

from service.engine.binding import Tensors
from service.engine.session import Session

logger = logging.getLogger(__name__)
Run = Callable[[Tensors], Tensors]
Work = Callable[[Run], None]
Load = Callable[[int | None], Session]
"""Makes a session for batches of so many rows; None: of any number."""


class Lanes:
    """The lanes of one model. They take work from one queue.

    Args:
        load: makes a session; called on the thread that will use it.
        sizes: batch sizes, rising, each with a session of fixed buffers; none: one session for any shapes.

    Attributes:
        sizes: those for which the GPU had memory.
        first: one of the sessions, for what all of them have in common.
    """

    def __init__(self, load: Load, sizes: Sequence[int]) -> None:
        self._load = load
        self.sizes = tuple(sizes)
        self._count = [0]  # shared with `_end`, which must not hold `self`
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        self.first = self._start()
        weakref.finalize(self, _end, self._queue, self._count)

    @property
    def count(self) -> int:
        """How many lanes there are."""
        return self._count[0]

    @property
    def provider(self) -> str:
        """The name of the execution provider."""
        return self.first.provider

    def add(self) -> bool:
        """Start one more lane; say whether the GPU has memory for it."""
        sizes = self.sizes
        try:
            self._start()
        except MemoryError as error:
            logger.info("no memory for another thread on the GPU: %s", error)
            return False
        if self.sizes != sizes:
            logger.info("batches of up to %d, not %d: no memory", self.sizes[-1], sizes[-1])
        return True

    def close(self, count: int) -> None:
        """End so many lanes after the work that is queued."""
        self._count[0] -= count
        _end(self._queue, [count])

    def begin(self, work: Work) -> None:
        """Let the next free lane do something; it is called with the function that runs a batch there."""
        self._queue.put(work)

    def run(self, inputs: Tensors) -> Tensors:
        """Run a batch of any size on a lane, from any other thread, and wait for it."""
        done: Future[Tensors] = Future()

        def work(run: Run) -> None:
            try:
                done.set_result(run(inputs))
            except BaseException as error:
                done.set_exception(error)

        self.begin(work)
        return done.result()

    def _start(self) -> Session:
        """Start a lane, and return one of its sessions once all of them are warm; raises what that ended with."""
        made: Future[dict[int, Session]] = Future()
        threading.Thread(
            target=_work, args=(self._queue, self._load, self.sizes, made), name="gpu-lane", daemon=True
        ).start()
        sessions = made.result()
        if self.sizes:
            self.sizes = tuple(sorted(sessions))
        self._count[0] += 1
        return next(iter(sessions.values()))


def _work(
    queue: SimpleQueue[Work | None], load: Load, sizes: Sequence[int], made: "Future[dict[int, Session]]"
) -> None:
    """A lane's life. It holds no reference to `Lanes`, so that it ends with them."""
    try:
        sessions = _sessions(load, sizes)
    except BaseException as error:
        made.set_exception(error)
        return
    made.set_result(sessions)
    run = _run_fixed(sessions) if sizes else sessions[0].run
    while (work := queue.get()) is not None:
        work(run)
        del work


def _sessions(load: Load, sizes: Sequence[int]) -> dict[int, Session]:
    """Make a warm session for each size, up to the last one that fits into the GPU's memory."""
    if not sizes:
        return {0: load(None)}
    sessions: dict[int, Session] = {}
    for size in sizes:
        try:
            session = load(size)
            session.bind()
        except MemoryError:
            if not sessions:
                raise
            logger.warning("no memory on the GPU for batches of %d", size)
            break
        sessions[size] = session
    return sessions


def _run_fixed(sessions: dict[int, Session]) -> Run:
    sizes = sorted(sessions)

    def run(inputs: Tensors) -> Tensors:
        """Run a batch on the session of the next size. What is larger than the largest is run in parts."""
        rows, largest = len(next(iter(inputs.values()))), sizes[-1]
        if rows > largest:
            parts = [
                run({name: array[start : start + largest] for name, array in inputs.items()})
                for start in range(0, rows, largest)
            ]
            return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        size = sizes[bisect_left(sizes, rows)]
        if size > rows:
            inputs = {name: _padded(array, size) for name, array in inputs.items()}
        outputs = sessions[size].run(inputs)
        return {name: array[:rows] for name, array in outputs.items()} if size > rows else outputs

    return run


def _padded(array: np.ndarray, size: int) -> np.ndarray:
    filled = np.zeros((size, *array.shape[1:]), array.dtype)
    filled[: len(array)] = array
    return filled


def _end(queue: SimpleQueue[Work | None], count: Sequence[int]) -> None:
    for _ in range(count[0]):
        queue.put(None)
