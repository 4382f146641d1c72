"""Runs a model's jobs in batches on this process' sessions, and finds the job that made a batch fail.

A batch starts as soon as a run may start and takes every job that is ready; no job waits for others to come.

On a CPU the worker that prepared an image runs it, if a run may start, and makes the answers. Where no worker is idle,
it first prepares the images that are next, at most as many as a batch has: to run them together is cheaper. Jobs that
come prepared could keep it with this model for ever, so after each of their batches it does what has waited longer. On
a GPU a lane takes the run: it computes batch after batch while jobs are ready, and workers make the answers meanwhile.

Threads: see `intake`. `process`, `take_over` and what they call run on worker threads, `_run_on_lane` and what it calls
on a lane. One lock guards what several threads change: the number of runs under way and the jobs that are ready. It is
never held while something is computed.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial
from heapq import heappop, heappush
from time import perf_counter
from types import MappingProxyType

from service.arrays import Tensors
from service.engine.assembly import Assembly, Run
from service.engine.device_errors import BrokenDeviceError
from service.engine.intake import Intake, parts_of
from service.engine.job import AnyJob, Jobs
from service.engine.lanes import Lanes
from service.engine.workers import Workers
from service.errors import Reason, RequestError

logger = logging.getLogger(__name__)


class Batcher(Intake):
    """A model's jobs under way, and the runs that answer them.

    Args:
        run: computes the outputs of a batch; called from up to `max_runs` threads at once. A MemoryError makes batches
            smaller from then on.
        workers: the threads that prepare, run and finish; all models share them.
        assembly: how a batch is put together.
        max_batch: the most rows that one run takes; an image is a row.
        max_runs: how many runs may be under way at once.
        max_queue: how many jobs may be under way, from submission to answer; more are refused.
        cost: seconds of work per row to begin with; from then on it is measured.
        wide: computes the same on more threads than the caller's, by their number.
        lanes: of a GPU, as many as `max_runs`; they run the batches then, and `run` is not called.
        observe_batch: called with the rows of every batch that was run.
        on_broken: called with the reason when the device can no longer be used; nothing is tried again then.
    """

    def __init__(
        self,
        run: Run,
        workers: Workers,
        assembly: Assembly,
        *,
        max_batch: int,
        max_runs: int,
        max_queue: int,
        cost: float,
        wide: Mapping[int, Run] = MappingProxyType({}),
        lanes: Lanes | None = None,
        observe_batch: Callable[[int], None] = lambda _: None,
        on_broken: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(workers, max_queue=max_queue, cost=cost)
        self._assembly = assembly
        self.max_batch, self.max_runs = max_batch, max_runs
        self._runs_on = {1: run, **wide}
        self._threads = sorted(self._runs_on)
        self._lanes = lanes
        self._observe_batch = observe_batch
        self._on_broken = on_broken
        self._runs = 0
        self._passed: list[int] = []  # a heap: priorities of prepared jobs whose workers found no run that may start
        self._lock = threading.Lock()  # guards _runs, _passed and the jobs that are ready in _assembly

    def enter(self, job: AnyJob) -> None:
        self._count(job)
        if not self._assembly.prepares:
            with self._lock:
                self._assembly.add(job)
            if self._lanes is not None:  # no worker is needed
                self._begin_run(job.priority)
                return
        self._workers.put(job, self)

    def process(self, job: AnyJob) -> None:
        """Get a job ready, on a CPU those behind it, too; then run batches while a run may start and jobs are ready.

        A job for which there is no room comes here again. One that came prepared may have been in another thread's
        batch already.
        """
        if self._assembly.prepares:
            kept, ready = self._get_ready(job)
            if self._lanes is None:
                for _ in range(self.max_batch - 1):  # broken ones included: those that are ready do not wait for more
                    if not kept or (following := self._next_for_batch()) is None:
                        break
                    kept, also = self._get_ready(following)
                    ready = ready or also
            if not (kept and ready):
                return
        self._begin_run(job.priority)

    def take_over(self, jobs: Jobs, *, running: bool) -> None:
        """Refuse the jobs of a thread that was replaced, and run what is ready, in its place where it held a run.

        They count as pending until that thread returns: the row or the memory that they are in is still in use.
        """
        super().take_over(jobs, running=running)
        if running:
            self._run_batches()
        elif self._assembly.prepares and self._lanes is None:
            self._begin_run(0)  # of what that thread had got ready before

    def _make_ready(self, job: AnyJob) -> None:
        self._assembly.prepare(job)

    def _release(self, jobs: Jobs) -> None:
        for job in self._assembly.release(jobs):
            self._workers.put(job, self)

    def _get_ready(self, job: AnyJob) -> tuple[bool, bool]:
        """Get a job ready, if there is room for it. Say whether this thread goes on, and whether the job is ready."""
        if not self._assembly.reserve(job):
            return True, False
        if self._prepare(job):
            with self._lock:
                self._assembly.add(job)
            return True, True
        self._deliver([job])
        return self._workers.go_on(), False

    def _next_for_batch(self) -> AnyJob | None:
        """Take the image that waits next, if it may be part of a batch with those that are ready."""
        until = perf_counter() + self.max_batch * self._cost
        with self._lock:
            lowest = self._assembly.lowest_to_add(self.max_batch, until)
        return None if lowest < 0 else self._workers.take(self, lowest)

    def _begin_run(self, priority: int) -> None:
        """Begin a run if there may be one; else those under way take the job along, or let a worker come here again."""
        with self._lock:
            if self._runs >= self.max_runs:
                if self._lanes is None and not self._assembly.prepares:
                    heappush(self._passed, priority)
                return
            self._runs += 1
        if self._lanes is None:
            self._run_batches()
        else:
            self._lanes.submit(self._run_on_lane)

    def _next_batch(self) -> list[AnyJob]:
        """Take the jobs of the next batch. If there are none, this thread's run ends under the same lock.

        So a job that is added right after that starts a run itself, and none is left behind.
        """
        with self._lock:
            batch = self._assembly.next_batch(self.max_batch)
            if not batch:
                self._runs -= 1
                self._passed.clear()  # their jobs were part of batches
            # The jobs of this batch need no runs of their own; the one that began this run was not passed by.
            for _ in range(min(len(batch) - 1, len(self._passed))):
                heappop(self._passed)
            return batch

    def _end_run(self) -> None:
        """End a run. Where a worker has passed a job by, queue the next one behind what waits for workers already."""
        with self._lock:
            self._runs -= 1
            priority = heappop(self._passed) if self._passed else None
        if priority is not None:
            self._workers.hand_over(self, (), partial(self._begin_run, priority), priority)

    def _run_batches(self) -> None:
        """Run what is ready until nothing is, or until this thread is replaced: its successor has the run then.

        Where jobs came prepared, one batch is run.
        """
        while batch := self._next_batch():
            self._workers.begin(self, batch, running=True)
            for jobs, outputs in self._compute(batch):
                self._assembly.answer(jobs, outputs)
            kept = self._workers.go_on()
            self._deliver(batch)
            if not kept:
                return
            if not self._assembly.prepares:
                self._end_run()
                return

    def _run_on_lane(self, run: Run) -> None:
        """Run what is ready until nothing is, and let workers make the answers."""
        while batch := self._next_batch():
            with self._workers.watched(self, batch):
                computed = self._compute(batch, run)
            self._release(batch)
            if failed := [job for job in batch if job.failed]:
                self._workers.deliver(failed, self.settle)
            for jobs, outputs in computed:
                if self._assembly.quick:
                    self._finish(jobs, outputs, 0)
                    continue
                for some, row in parts_of(jobs, self._workers.size):
                    self._workers.hand_over(self, some, partial(self._finish, some, outputs, row))

    def _compute(self, batch: Jobs, run: Run | None = None) -> list[tuple[Jobs, Tensors]]:
        """Run a batch, in parts where that is necessary. Return each part with its outputs; other jobs have failed.

        Args:
            batch: as `next_batch` returned it.
            run: of a lane; None: on as many cores as are free.
        """
        try:
            return [] if batch[0].failed else self._run_jobs(batch, run)
        except BaseException as error:  # a bug of ours: its jobs are answered
            logger.exception("a batch ended in an unexpected error")
            for job in batch:
                job.fail(error)
            return []

    def _run_jobs(self, jobs: Jobs, run: Run | None) -> list[tuple[Jobs, Tensors]]:
        """Run jobs as one batch. Where that fails, they are run in halves, down to the one that made it fail."""
        try:
            with self._workers.cores(() if run else self._threads, jobs) as threads:
                start = perf_counter()
                outputs = self._assembly.compute(jobs, run or self._runs_on[threads])
                end = perf_counter()
        except Exception as error:
            broken = isinstance(error, BrokenDeviceError)
            if broken:
                self._on_broken(str(error))
            if len(jobs) == 1 or broken:
                told = _told(error)
                for job in jobs:
                    job.fail(told)
                return []
            if isinstance(error, MemoryError) and (fewer := _rows_of(jobs) // 2) < self.max_batch:
                self.max_batch = fewer
                logger.warning("out of memory with %d rows: batches of up to %d from now on", _rows_of(jobs), fewer)
            half = len(jobs) // 2
            return self._run_jobs(jobs[:half], run) + self._run_jobs(jobs[half:], run)
        size = _rows_of(jobs)
        for job in jobs:
            job.run, job.ran, job.threads, job.batch_size = start, end, threads, size
        self._observe_batch(size)
        return [(jobs, outputs)]

    def _finish(self, jobs: Jobs, outputs: Tensors, row: int) -> None:
        """Answer jobs that a lane has run."""
        self._assembly.answer(jobs, outputs, row)
        self._workers.deliver(jobs, self.settle)


def _rows_of(jobs: Jobs) -> int:
    return sum([job.input.rows for job in jobs])


def _told(error: Exception) -> Exception:
    """Return what a job fails with: that it may be sent again, where the device is to blame."""
    if isinstance(error, BrokenDeviceError):
        what = "The GPU was lost; the process that uses it must be started again."
    elif isinstance(error, MemoryError):
        what = "There was no memory to compute this."
    else:
        return error
    logger.error("%s %s", what, error)
    return RequestError(Reason.NOT_READY, f"{what} Try again shortly.", retry_after=1)
