"""The threads that do all the work of the engine, shared by all models: one per core, so they do not compete for cores.

A worker takes the next job, lets its model's batcher prepare it, perhaps with those that follow it, and runs the batch
itself if a run may start: on an idle machine an image passes through one thread from its bytes to its answer. ONNX
Runtime may compute a run with the help of further threads, so a run takes as many cores as it has threads, and waits
until one is free (`Workers.cores`). On a GPU the runs have threads of their own (`lanes`), and workers prepare images
and make answers.

No thread can be stopped from outside. One that spends longer than `limit` on the same image, or the same run, is
replaced: its jobs are refused, a new thread takes its place, and it ends itself when it returns. A lane is not
replaced, as its GPU is to blame: its jobs are refused, and the process is soon not live any more.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from itertools import count
from math import inf
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import NamedTuple

from service.engine.backlog import Backlog
from service.engine.job import AnyJob, Consumer, Jobs

logger = logging.getLogger(__name__)
_FIRST, _STOP_PRIORITY = -1, 99
_SLOW_S = 1.0  # in which nearly every image is prepared


class _Task(NamedTuple):
    """Something for a worker to do, and for which jobs of which consumer."""

    consumer: Consumer
    jobs: Jobs
    work: Callable[[], None]


@dataclass(slots=True)
class _Step:
    """What a thread is doing.

    Attributes:
        jobs: that are refused if the step takes too long.
        running: whether the thread has one of the consumer's runs.
        began: when, as `time.perf_counter()`.
        replaced: it took too long, and another thread has the place of this one.
        told: it takes long, and another thread was told to run what is ready.
        cores: that its run has taken.
        on_lane: the thread is none of the workers.
    """

    consumer: Consumer
    jobs: Jobs
    running: bool
    began: float = field(default_factory=perf_counter)
    replaced: bool = False
    told: bool = False
    cores: int = 0
    on_lane: bool = False


class Workers(Backlog):
    """A fixed number of daemon threads and the priority queue before them.

    Each thread writes its own entry of `_steps`; `_lock` decides between a thread that ends its step and the watch that
    replaces it.

    Args:
        size: how many threads, and how many cores all runs share.
        limit: seconds that one step, an image's preparation or a run with its answers, may take; 0: any time.
    """

    def __init__(self, size: int, limit: float = 0.0) -> None:
        super().__init__(size)
        self._limit = limit
        self._order = count()  # jobs of one priority are done in the order in which they were submitted
        # A heap for the order and a queue of tokens to wait for, both atomic under the interpreter's lock. With
        # `queue.PriorityQueue` idle workers take turns, each with cold caches: a JPEG cost 8 % more processor time.
        self._heap: list[tuple[int, int, _Task | None]] = []
        self._tokens: SimpleQueue[None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()  # a thread ends its step, or is replaced: never both
        self._free_cores = size
        self._elsewhere = 0  # cores that work outside of these threads uses
        self._core_is_free = threading.Condition(self._lock)
        self._steps: dict[int, _Step] = {}  # by busy thread
        self._closed = threading.Event()
        self._threads = set[threading.Thread]()
        for i in range(size):
            self._start(f"worker-{i}")
        if limit:
            threading.Thread(target=self._watch, name="worker-watch", daemon=True).start()

    def count(self, job: AnyJob) -> None:
        """Add a job to the work ahead. Only on the event loop, which will also settle it."""
        self._loop = job.future.get_loop()
        super().count(job)

    def put(self, job: AnyJob, consumer: Consumer) -> None:
        """Queue a job that was counted. From any thread."""
        self._put(job.priority, _Task(consumer, [job], partial(consumer.process, job)))

    def hand_over(self, consumer: Consumer, jobs: Jobs, work: Callable[[], None], priority: int = _FIRST) -> None:
        """Let a worker do something for jobs: before it begins another one, or when its turn comes. From any thread."""
        self._put(priority, _Task(consumer, jobs, work))

    def take(self, consumer: Consumer, lowest: int) -> AnyJob | None:
        """Take the next job for the calling worker, if it is this consumer's and of this priority or a higher one.

        None also where a worker is idle: that one begins with it right now.
        """
        busy = sum([not (step.replaced or step.on_lane) for step in list(self._steps.values())])
        if busy < self.size or _job_of(self._heap[:1], consumer, lowest) is None:
            return None
        try:
            self._tokens.get_nowait()
        except Empty:
            return None
        job = _job_of([first := heappop(self._heap)], consumer, lowest)
        if job is None:  # another thread has taken the one that was first
            heappush(self._heap, first)
            self._tokens.put(None)
            return None
        self.begin(consumer, [job], running=False)
        return job

    def begin(self, consumer: Consumer, jobs: Jobs, *, running: bool) -> None:
        """Note what the calling thread begins."""
        self._steps[threading.get_ident()] = _Step(consumer, jobs, running)

    @contextmanager
    def watched(self, consumer: Consumer, jobs: Jobs) -> Iterator[None]:
        """Watch the calling thread, a lane, while it runs jobs."""
        self._steps[threading.get_ident()] = _Step(consumer, jobs, running=True, on_lane=True)
        try:
            yield
        finally:
            del self._steps[threading.get_ident()]

    def go_on(self) -> bool:
        """Whether the calling thread was not replaced. If so, its step begins anew: it has as long again.

        A thread that was replaced delivers the jobs that it has, and returns.
        """
        step = self._steps[threading.get_ident()]
        with self._lock:
            if not step.replaced:
                step.began = perf_counter()
            return not step.replaced

    @contextmanager
    def cores(self, threads: Sequence[int], jobs: Jobs) -> Iterator[int]:
        """Take cores for the calling thread's run of some jobs, until the block ends. Waits until one is free.

        The cores are shared out evenly among the jobs that are, or were, under way beside these. A job that was
        submitted while others were under way shares with as many, even if they have been answered since: their clients
        are likely to send the next. So one client alone has all cores for its run, and two have half of them each.

        Args:
            threads: the numbers of threads that the run may have, rising, from 1 on; none: it needs no core.
            jobs: of the run.

        Yields:
            The largest of these numbers that the share allows. Runs never have more threads than there are cores.
        """
        if not threads:
            yield 1
            return
        step = self._steps[threading.get_ident()]
        under_way = max([self._jobs, *[job.concurrent for job in jobs]])
        share = (self.size - self._elsewhere) // max(1, under_way - len(jobs) + 1)
        with self._lock:
            if not self._free_cores:
                step.began = inf  # waiting is not slow work
                self._core_is_free.wait_for(lambda: self._free_cores)
                step.began = perf_counter()
            room = max(1, min(share, self._free_cores))
            step.cores = max([count for count in threads if count <= room])
            self._free_cores -= step.cores
            taken = step.cores
        try:
            yield taken
        finally:
            with self._lock:
                self._give_back(step)

    @contextmanager
    def leaving_a_core(self) -> Iterator[None]:
        """Let runs be narrower until the block ends: the calling thread, none of the workers, needs a core itself.

        A model is loaded so. A run on all cores would wait for its slowest thread, the one that shares its core.
        """
        with self._lock:
            self._elsewhere += 1
        try:
            yield
        finally:
            with self._lock:
                self._elsewhere -= 1

    def longest(self) -> float:
        """Seconds since the run that is under way for longest began.

        Threads that were replaced while they prepared an image count only when they are as many as there are workers.
        """
        steps = list(self._steps.values())
        if sum(step.replaced for step in steps) < self.size:
            steps = [step for step in steps if step.running or not step.replaced]
        return perf_counter() - min((step.began for step in steps), default=perf_counter())

    def deliver(self, jobs: Jobs, settle: Callable[[Jobs], None]) -> None:
        """Let the event loop settle jobs, in one wake-up. Called on worker threads."""
        assert self._loop is not None  # noqa: S101 - set by `count`
        try:
            self._loop.call_soon_threadsafe(settle, jobs)
        except RuntimeError:  # the loop is closed: the process ends, and no request waits
            logger.debug("%d answers came after the event loop was closed", len(jobs))

    def close(self) -> None:
        """Let the threads end after the jobs that are queued. Idempotent."""
        self._closed.set()
        for _ in range(self.size):
            self._put(_STOP_PRIORITY, None)

    def _give_back(self, step: _Step) -> None:
        """Give back the cores of a step. Under the lock."""
        self._free_cores += step.cores
        step.cores = 0
        self._core_is_free.notify_all()

    def _start(self, name: str, replaced: _Step | None = None) -> None:
        thread = threading.Thread(target=self._work, args=(replaced,), name=name, daemon=True)
        self._threads.add(thread)
        thread.start()

    def _put(self, priority: int, task: _Task | None) -> None:
        heappush(self._heap, (priority, next(self._order), task))
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
        consumer = replaced.consumer
        return self._do(_Task(consumer, (), partial(consumer.take_over, replaced.jobs, running=replaced.running)))

    def _next(self) -> bool:
        """Do the next task; say whether the thread goes on. Its own function, so that a waiting thread holds no job."""
        self._tokens.get()
        _, _, task = heappop(self._heap)
        return task is not None and self._do(task)

    def _do(self, task: _Task) -> bool:
        """Do a task. Say whether the thread was not replaced."""
        self.begin(task.consumer, task.jobs, running=False)
        try:
            task.work()
        except BaseException:  # a bug: no worker is lost to it
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
                        self._give_back(step)
                if late and step.on_lane:
                    logger.error("a run took more than %g s on a GPU: its jobs are refused", self._limit)
                    step.consumer.take_over(step.jobs, running=False)
                elif late:
                    what = "a run" if step.running else "an image"
                    logger.error("%s took more than %g s: its thread is replaced", what, self._limit)
                    self._start("worker-in-place", step)
                elif perf_counter() - step.began > _SLOW_S and not (step.running or step.told or step.replaced):
                    step.told, consumer = True, step.consumer  # images may wait for it that are ready
                    self.hand_over(consumer, (), partial(consumer.take_over, (), running=False))


def _job_of(first: Sequence[tuple[int, int, _Task | None]], consumer: Consumer, lowest: int) -> AnyJob | None:
    """Return the job of the heap's first entry, if it is one of this consumer, of this priority or a higher one."""
    tasks = [task for priority, _, task in first if task and task.consumer is consumer and priority <= lowest]
    return tasks[0].jobs[0] if tasks and tasks[0].jobs else None
