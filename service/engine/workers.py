"""The threads that do all the work of the engine, shared by all models: one per core, so nothing is oversubscribed.

A worker takes the next picture, prepares it, brings it to its model's batcher, and runs the batch itself if a run may
start: a picture that finds the machine idle passes through one thread from its bytes to its answer.
"""

import asyncio
import logging
import threading
from collections.abc import Sequence
from itertools import count
from queue import PriorityQueue
from typing import Any, Protocol

from service.engine.job import Job

logger = logging.getLogger(__name__)
_STOP_PRIORITY = 99


class Line(Protocol):
    """Whose jobs the workers do: a model's batcher."""

    def process(self, job: Job[Any]) -> None:
        """Do a job, and whatever has become possible with it. On a worker thread."""

    def settle(self, jobs: Sequence[Job[Any]]) -> None:
        """Resolve the futures of finished jobs. On the event loop."""


class Workers:
    """A fixed number of daemon threads and the priority queue before them.

    `submit` and `backlog` belong to the event loop.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.backlog = 0.0  # seconds of work that was submitted and not delivered, as the batchers estimate it
        self._order = count()
        self._queue: PriorityQueue[tuple[int, int, Job[Any] | None, Line | None]] = PriorityQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads = [threading.Thread(target=self._work, name=f"worker-{i}", daemon=True) for i in range(size)]
        for thread in self._threads:
            thread.start()

    def predicted_wait(self) -> float:
        """Seconds until a picture that is submitted now would be taken up."""
        return self.backlog / self.size

    def submit(self, job: Job[Any], line: Line) -> None:
        """Queue a job. Only on the event loop, which will also settle it."""
        self._loop = job.future.get_loop()
        self._queue.put((job.priority, next(self._order), job, line))

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
            self._queue.put((_STOP_PRIORITY, next(self._order), None, None))

    def _work(self) -> None:
        while True:
            _, _, job, line = self._queue.get()
            if job is None or line is None:
                return
            try:
                line.process(job)
            except BaseException:  # a bug: nobody may lose a worker to it
                logger.exception("a worker survived an unexpected error")
            del job, line  # a waiting worker keeps no picture alive
