"""The threads that do all the work of the engine, shared by all models: one per core, so nothing is oversubscribed.

A worker takes the next picture, prepares it, brings it to its model's batcher, and runs the batch itself if a run may
start: a picture that finds the machine idle passes through one thread from its bytes to its answer.

No thread can be stopped from outside. One that has been at the same picture, or the same run, for longer than `limit`
is replaced: its jobs are refused, a new thread takes its place, and it ends itself when it returns.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
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


class Consumer(Protocol):
    """Whose jobs the workers do: a model's batcher."""

    def process(self, job: Job[Any]) -> None:
        """Do a job, and whatever has become possible with it. On a worker thread."""

    def settle(self, jobs: Sequence[Job[Any]]) -> None:
        """Resolve the futures of finished jobs. On the event loop."""

    def take_over(self, jobs: Sequence[Job[Any]], *, running: bool) -> None:
        """Refuse the jobs of a thread that was replaced, and go on in its place. On the worker that replaces it."""


@dataclass(slots=True)
class _Step:
    """What a thread is at.

    Attributes:
        jobs: that are refused if the step takes too long.
        running: whether the thread holds one of the line's runs.
        began: when, as `time.perf_counter()`.
        replaced: it took too long, and another thread has the place of this one.
    """

    line: Consumer
    jobs: Sequence[Job[Any]]
    running: bool
    began: float = field(default_factory=perf_counter)
    replaced: bool = False


class Workers:
    """A fixed number of daemon threads and the priority queue before them.

    `submit`, `settled` and `predicted_wait` belong to the event loop.

    Args:
        size: how many threads.
        limit: seconds that one step, a picture's preparation or a run with its answers, may take; 0: for ever.
    """

    def __init__(self, size: int, limit: float = 0.0) -> None:
        self.size = size
        self._limit = limit
        self._backlog = 0.0  # seconds of work that was submitted and not delivered, as the batchers estimate it
        self._jobs = 0  # how many jobs that is
        self._pace = 1.0  # seconds that a second of work takes when all workers have work: they share the machine
        self._settled: float | None = None  # when jobs were last settled, if all workers had work from then on
        self._order = count()
        # A heap for the order and a queue for the waiting: both are atomic under the GIL and need no lock of ours.
        self._heap: list[tuple[int, int, Job[Any] | None, Consumer | None]] = []
        self._tokens: SimpleQueue[None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()  # a thread goes on, or is replaced: one of the two
        self._steps: dict[int, _Step] = {}  # by busy thread
        self._closed = threading.Event()
        self._threads = set[threading.Thread]()
        for i in range(size):
            self._start(f"worker-{i}")
        if limit:
            threading.Thread(target=self._watch, name="worker-watch", daemon=True).start()

    def predicted_wait(self) -> float:
        """Seconds until a picture that is submitted now would be taken up."""
        return self._backlog * self._pace / self.size

    def submit(self, job: Job[Any], line: Consumer) -> None:
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

    def begin(self, line: Consumer, jobs: Sequence[Job[Any]], *, running: bool) -> None:
        """Note what the calling thread begins."""
        self._steps[threading.get_ident()] = _Step(line, jobs, running)

    def go_on(self) -> bool:
        """Whether the calling thread has its place still. If so, its step begins anew: it has as long again.

        What it holds is no longer its own where it has not: it hands over the jobs that it has, and returns.
        """
        step = self._steps[threading.get_ident()]
        with self._lock:
            if not step.replaced:
                step.began = perf_counter()
            return not step.replaced

    def longest(self) -> float:
        """Seconds since the run that is under way for longest began.

        Pictures that take too long to prepare do not count, unless as many threads are at them as there are workers:
        the process is well, and a client sent them.
        """
        steps = list(self._steps.values())
        if sum(step.replaced for step in steps) < self.size:
            steps = [step for step in steps if step.running or not step.replaced]
        return perf_counter() - min((step.began for step in steps), default=perf_counter())

    def deliver(self, jobs: Sequence[Job[Any]], settle: Callable[[Sequence[Job[Any]]], None]) -> None:
        """Let the event loop settle jobs, in one wake-up. Called on worker threads."""
        assert self._loop is not None  # noqa: S101 - set by the `submit` that brought the jobs here
        try:
            self._loop.call_soon_threadsafe(settle, jobs)
        except RuntimeError:  # the loop is closed: the process is going down and nobody waits
            logger.debug("%d answers came after the event loop was closed", len(jobs))

    def close(self) -> None:
        """Let the threads end after the jobs that they have. Idempotent."""
        self._closed.set()
        for _ in range(self.size):
            self._put(_STOP_PRIORITY, None, None)

    def _start(self, name: str, replaced: _Step | None = None) -> None:
        thread = threading.Thread(target=self._work, args=(replaced,), name=name, daemon=True)
        self._threads.add(thread)
        thread.start()

    def _put(self, priority: int, job: Job[Any] | None, line: Consumer | None) -> None:
        heappush(self._heap, (priority, next(self._order), job, line))
        self._tokens.put(None)

    def _work(self, replaced: _Step | None) -> None:
        try:
            if replaced is None or self._take_over(replaced):
                del replaced
                while self._next():
                    pass
        finally:
            self._threads.discard(threading.current_thread())

    def _take_over(self, replaced: _Step) -> bool:
        line = replaced.line
        return self._do(line, (), partial(line.take_over, replaced.jobs, running=replaced.running))

    def _next(self) -> bool:
        """Do the next job. Say whether the thread has its place still; a waiting worker keeps no picture alive."""
        self._tokens.get()
        _, _, job, line = heappop(self._heap)
        return job is not None and line is not None and self._do(line, [job], partial(line.process, job))

    def _do(self, line: Consumer, jobs: Sequence[Job[Any]], work: Callable[[], None]) -> bool:
        """Do something for a line. Say whether the thread has its place still."""
        self.begin(line, jobs, running=False)
        try:
            work()
        except BaseException:  # a bug: nobody may lose a worker to it
            logger.exception("a worker survived an unexpected error")
        stays = self.go_on()
        del self._steps[threading.get_ident()]
        return stays

    def _watch(self) -> None:
        """Replace threads that take too long."""
        while not self._closed.wait(min(1.0, self._limit / 4)):
            for step in list(self._steps.values()):
                with self._lock:
                    late = not step.replaced and perf_counter() - step.began > self._limit
                    step.replaced = step.replaced or late
                if late:
                    what = "a run" if step.running else "a picture"
                    logger.error("%s took more than %g s: its thread is replaced", what, self._limit)
                    self._start("worker-in-place", step)
