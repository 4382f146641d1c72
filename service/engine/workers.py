"""The threads that do all the work of the engine, shared by all models: one per core, so nothing is oversubscribed.

A worker takes the next picture, prepares it, brings it to its model's batcher, and runs the batch itself if a run may
start: a picture that finds the machine idle passes through one thread from its bytes to its answer.
"""

import asyncio
import logging
import threading
from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import count
from queue import SimpleQueue
from time import perf_counter
from typing import Any, Protocol

from service.engine.job import Job

logger = logging.getLogger(__name__)
_STOP_PRIORITY = 99
_SMOOTHING = 0.05  # weight of the newest observation in the moving average of the pace
_SLOWEST = 20.0  # a pause of the whole process says nothing about its pace


class Line(Protocol):
    """Whose jobs the workers do: a model's batcher."""

    def process(self, job: Job[Any]) -> None:
        """Do a job, and whatever has become possible with it. On a worker thread."""

    def settle(self, jobs: Sequence[Job[Any]]) -> None:
        """Resolve the futures of finished jobs. On the event loop."""


class Workers:
    """A fixed number of daemon threads and the priority queue before them.

    `submit`, `settled` and `predicted_wait` belong to the event loop.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._backlog = 0.0  # seconds of work that was submitted and not delivered, as the batchers estimate it
        self._jobs = 0  # how many jobs that is
        self._pace = 1.0  # seconds that a second of work takes when all workers have work: they share the machine
        self._settled: float | None = None  # when jobs were last settled, if all workers had work from then on
        self._order = count()
        # A heap for the order and a queue for the waiting: both are atomic under the GIL and need no lock of ours.
        self._heap: list[tuple[int, int, Job[Any] | None, Line | None]] = []
        self._tokens: SimpleQueue[None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._beats: dict[int, float] = {}  # when each busy thread began what it does
        self._threads = [threading.Thread(target=self._work, name=f"worker-{i}", daemon=True) for i in range(size)]
        for thread in self._threads:
            thread.start()

    def predicted_wait(self) -> float:
        """Seconds until a picture that is submitted now would be taken up."""
        return self._backlog * self._pace / self.size

    def submit(self, job: Job[Any], line: Line) -> None:
        """Queue a job. Only on the event loop, which will also settle it."""
        self._loop = job.future.get_loop()
        self._backlog += job.cost
        self._jobs += 1
        self._put(job.priority, job, line)

    def settled(self, jobs: Sequence[Job[Any]]) -> None:
        """Take finished jobs off the books, and see how fast work is really done. Only on the event loop."""
        now, work = perf_counter(), sum(job.cost for job in jobs)
        self._jobs -= len(jobs)
        self._backlog = self._backlog - work if self._jobs else 0.0  # sums of floats leave crumbs
        if self._settled is not None and work > 0:
            pace = (now - self._settled) * self.size / work
            self._pace += _SMOOTHING * (min(max(pace, 1.0), _SLOWEST) - self._pace)
        self._settled = now if self._jobs > self.size else None

    def beat(self) -> None:
        """Note that the calling worker thread begins something new."""
        self._beats[threading.get_ident()] = perf_counter()

    def longest(self) -> float:
        """Seconds since the worker that is busy with one thing for longest began it."""
        return perf_counter() - min(list(self._beats.values()), default=perf_counter())

    def deliver(self, jobs: Sequence[Job[Any]], line: Line) -> None:
        """Hand finished jobs back to the event loop, in one wake-up. Called on worker threads."""
        assert self._loop is not None  # noqa: S101 - set by the `submit` that brought the jobs here
        try:
            self._loop.call_soon_threadsafe(line.settle, jobs)
        except RuntimeError:  # the loop is closed: the process is going down and nobody waits
            logger.debug("%d answers came after the event loop was closed", len(jobs))

    def close(self) -> None:
        """Let the threads end after the jobs that they have. Idempotent."""
        for _ in self._threads:
            self._put(_STOP_PRIORITY, None, None)

    def _put(self, priority: int, job: Job[Any] | None, line: Line | None) -> None:
        heappush(self._heap, (priority, next(self._order), job, line))
        self._tokens.put(None)

    def _work(self) -> None:
        while True:
            self._tokens.get()
            _, _, job, line = heappop(self._heap)
            if job is None or line is None:
                return
            self.beat()
            try:
                line.process(job)
            except BaseException:  # a bug: nobody may lose a worker to it
                logger.exception("a worker survived an unexpected error")
            del self._beats[threading.get_ident()]
            del job, line  # a waiting worker keeps no picture alive
