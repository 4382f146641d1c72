"""The threads that run a model on a GPU. `service.models` makes them, and the batcher gives them its runs.

On a GPU a batch must have one of a few sizes, each with a session of its own: ONNX Runtime's convolutions remember the
plan of the last shape only, so a session that runs several sizes builds plans at every change. And its CUDA graphs, its
streams and its handles of cuDNN belong to the thread that made them. So a lane makes its sessions, warms them up and
runs them, all on its own thread. A second lane copies its batch while the first computes.
"""

import logging
import threading
import weakref
from bisect import bisect_left
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import NamedTuple, Self

import numpy as np

from service.arrays import Tensors
from service.engine.assembly import Run
from service.engine.binding import Fill
from service.engine.cuda import CAPTURES, Stream
from service.engine.device_errors import BrokenDeviceError, told_apart
from service.engine.session import Session

logger = logging.getLogger(__name__)
Work = Callable[[Run], None]
"""What a lane does: called on its thread with its way to run a batch."""


Load = Callable[[int, Stream | None], Session]
"""Loads a session for a batch size, with the stream that it runs in; for 0 and None one that takes any shapes."""
Sample = Callable[[int], Tensors]
"""Makes inputs of so many rows."""
MakeFill = Callable[[Stream], Fill]
"""Makes what decodes JPEGs in a stream."""


def rows_of(inputs: Tensors) -> int:
    """The rows of a batch."""
    return len(next(iter(inputs.values())))


class Lanes:
    """The lanes of one model; a free one takes the next work. At first there are none.

    They end with this object. An idle lane holds nothing of the work that it did, so a model that nobody uses any more
    is collected, and this with it.

    Args:
        load: called on a lane's thread.
        sizes: of batches, rising; empty: any, on buffers that each run makes.
        sample: inputs to warm up with.
        graphs: runs are captured as CUDA graphs.
        device_id: of the GPU.
        make_stream: called on a lane's thread with the number of the GPU.
        make_fill: called on a lane's thread; None: no JPEGs are run.

    Attributes:
        sizes: those for which there was memory.
        decodes: whether all lanes take JPEGs.
    """

    def __init__(
        self,
        load: Load,
        sizes: Sequence[int],
        sample: Sample,
        *,
        graphs: bool = False,
        device_id: int = 0,
        make_stream: Callable[[int], Stream] = Stream,
        make_fill: MakeFill | None = None,
    ) -> None:
        self.sizes = tuple(sizes)
        self.decodes = make_fill is not None
        self._make_fill = make_fill
        self._load, self._sample, self._graphs = load, sample, graphs
        self._make_stream = partial(make_stream, device_id)
        self._work: SimpleQueue[Work | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        weakref.finalize(self, _close, self._work, self._threads)

    @property
    def count(self) -> int:
        """How many lanes there are."""
        return len(self._threads)

    def add(self) -> None:
        """Start a lane, and wait until it is warm. Sizes for which the first one has no memory are left out.

        Raises:
            MemoryError: not even the smallest size has room, or not all sizes on a further lane.
            SessionError, BrokenDeviceError: as `Session` raises them.
        """
        future: Future[_Warm] = Future()
        lane = _Lane(
            self._load,
            self.sizes,
            self._sample,
            self._make_stream,
            self._make_fill,
            graphs=self._graphs,
            further=bool(self._threads),
        )
        thread = threading.Thread(target=lane.live, args=(self._work, future), name="lane", daemon=True)
        thread.start()
        warm = future.result()
        self.sizes, self.decodes = warm.sizes, self.decodes and warm.decodes
        self._threads.append(thread)

    def freeze(self) -> None:
        """Let go of what lanes are made with, the graph's bytes: no further one is added."""
        del self._load, self._sample

    def submit(self, work: Work) -> None:
        """Let a lane do something."""
        self._work.put(work)

    def begin(self, inputs: Tensors) -> "Future[Tensors]":
        """Begin a run of a known size on a lane."""
        future: Future[Tensors] = Future()

        def work(run: Run) -> None:
            try:
                future.set_result(run(inputs))
            except BaseException as error:
                future.set_exception(error)

        self.submit(work)
        return future

    def run(self, inputs: Tensors) -> Tensors:
        """Run any number of rows, padded or in parts, and wait. For all but serving: tests, measurements.

        Raises:
            MemoryError, BrokenDeviceError: as in `Session.run`.
        """
        rows = rows_of(inputs)
        if not self.sizes or rows in self.sizes:
            return self.begin(inputs).result()
        if rows > self.sizes[-1]:
            step = self.sizes[-1]
            parts = [self.run({k: v[i : i + step] for k, v in inputs.items()}) for i in range(0, rows, step)]
            return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        size = self.sizes[bisect_left(self.sizes, rows)]
        padded = {name: np.resize(value, (size, *value.shape[1:])) for name, value in inputs.items()}
        return {name: value[:rows] for name, value in self.begin(padded).result().items()}

    def close(self) -> None:
        """Let the lanes end after what was submitted. Idempotent, from any thread."""
        _close(self._work, self._threads)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close, and wait until their memory is free."""
        self.close()
        for thread in self._threads:
            thread.join()


def _close(queue: SimpleQueue[Work | None], threads: list[threading.Thread]) -> None:
    for _ in threads:
        queue.put(None)


class _Warm(NamedTuple):
    """A lane that is warm.

    Attributes:
        sizes: of batches that had room.
        decodes: whether it takes JPEGs.
    """

    sizes: tuple[int, ...]
    decodes: bool


class _Lane:
    """What one thread has: a stream, a session for each size, and perhaps what decodes JPEGs."""

    def __init__(
        self,
        load: Load,
        sizes: tuple[int, ...],
        sample: Sample,
        make_stream: Callable[[], Stream],
        make_fill: MakeFill | None,
        *,
        graphs: bool,
        further: bool,
    ) -> None:
        self._load, self._sizes, self._sample, self._graphs = load, sizes, sample, graphs
        self._further = further  # others have all sizes, which are worth more than one lane more
        self._make_stream, self._make_fill = make_stream, make_fill
        self._fill: Fill | None = None
        self._sessions: dict[int, Session] = {}  # 0: of any size

    def live(self, queue: SimpleQueue[Work | None], warm: "Future[_Warm]") -> None:
        """Warm up, tell what had room, and work until the queue says None. The thread's function."""
        stream: Stream | None = None
        try:
            with CAPTURES.others(), told_apart():  # first of all, as it says how the thread waits for the GPU
                stream = self._make_stream()
            self._warm_up(stream)
        except BaseException as error:
            self._end(stream)
            warm.set_exception(error)
            return
        warm.set_result(_Warm(tuple(self._sessions) if self._sizes else (), self._fill is not None))
        del warm, self._load, self._sample  # the graph's bytes
        while (work := queue.get()) is not None:
            try:
                work(self._run)
            except BaseException:  # a bug: no lane is lost to it
                logger.exception("a lane survived an unexpected error")
            del work
        self._end(stream)

    def _warm_up(self, stream: Stream) -> None:
        """Make the sessions, and then what decodes JPEGs, which takes no memory from them."""
        if not self._sizes:
            with CAPTURES.loading():
                self._sessions[0] = self._load(0, None)
            return
        self._make_sessions(stream)
        if self._make_fill is not None:
            try:
                with CAPTURES.loading(), told_apart():
                    self._fill = self._make_fill(stream)
            except BrokenDeviceError:
                raise
            except Exception as error:  # what decodes is not ours, and the CPU does as well
                logger.warning("JPEGs are not decoded on the GPU: %s", error)

    def _make_sessions(self, stream: Stream) -> None:
        """Make a session for each size, small ones first: one that finds no memory is left out, and all larger ones."""
        for size in self._sizes:
            try:
                self._sessions[size] = self._warm(size, stream)
            except MemoryError as error:
                if not self._sessions or self._further:
                    raise
                logger.warning(
                    "no memory for batches of %d: they have at most %d. %s", size, max(self._sessions), error
                )
                return

    def _warm(self, size: int, stream: Stream) -> Session:
        """Make a session, and run it until nothing is made any more: plans, buffers, its graph."""
        inputs = self._sample(size)
        with CAPTURES.loading():
            session = self._load(size, stream)
            for _ in range(2):
                session.run(inputs)
        if self._graphs:
            with CAPTURES.alone():
                session.capture(inputs)
            session.run(inputs)
        return session

    def _run(self, inputs: Tensors) -> Tensors:
        if not self._sizes:
            with CAPTURES.others():  # it allocates
                return self._sessions[0].run(inputs)
        return self._sessions[rows_of(inputs)].run(inputs, self._fill)

    def _end(self, stream: Stream | None) -> None:
        """Free what the lane has, on its thread as all else."""
        with CAPTURES.others():
            self._sessions.clear()
            self._fill = None
            if stream is not None:
                stream.close()
