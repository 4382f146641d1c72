"""A model's queue: refuses in time, collects jobs into batches, runs them, and finds the job that made a batch fail.

A batch starts as soon as a run may start and takes every job that is ready; no job waits for others.

On a CPU the worker that prepared a job runs it, if a run may start, and makes the answers. On a GPU a lane takes the
run: it computes batch after batch while jobs are ready, and workers make the answers meanwhile.

Threads: `check`, `submit`, `settle` and `_refuse` run on the event loop, which alone changes `pending` and the expected
cost of a row. `process`, `take_over` and what they call run on worker threads, `_run_on_lane` and what it calls on a
lane. One lock guards what several threads change: the number of runs under way and the jobs that are ready. It is never
held while something is computed.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial
from math import ceil
from time import perf_counter
from types import MappingProxyType

from service.engine.assembly import Assembly, Run
from service.engine.binding import Tensors
from service.engine.device_errors import BrokenDeviceError
from service.engine.job import AnyJob, Jobs
from service.engine.lanes import Lanes
from service.engine.workers import Workers
from service.errors import Reason, RequestError

logger = logging.getLogger(__name__)
_SMOOTHING = 0.1  # weight of the newest job in the moving average of the cost of a row
_FEWEST = 8  # jobs whose answers one worker makes: to wake another for fewer is not worth it
_TRUST = 0.8  # share of the time that is left, in which the predicted wait must end


class Batcher:
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

    Attributes:
        pending: jobs that were submitted and are not settled.
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
        self.max_batch, self.max_runs, self.max_queue = max_batch, max_runs, max_queue
        self.pending = 0
        self._runs_on = {1: run, **wide}
        self._threads = sorted(self._runs_on)
        self._lanes = lanes
        self._workers = workers
        self._assembly = assembly
        self._cost = cost
        self._observe_batch = observe_batch
        self._on_broken = on_broken
        self._runs = 0
        self._lock = threading.Lock()  # guards _runs and the jobs that are ready in _assembly

    @property
    def full(self) -> bool:
        """Whether there is no place for a job."""
        return self.pending >= self.max_queue

    def check(self, deadline: float, rows: int = 1) -> None:
        """Refuse what could not be answered in time, at once and before any work is done for it.

        Several rows, each a job, are refused together: the last of them waits for the others.

        The wait is predicted from the work ahead of all models (`Workers.predicted_wait`), for they share the workers.
        It is an average, so it may be too short: wait and work must fit into four fifths of the time that is left.
        Where nothing waits nothing is refused, however short the time.

        Raises:
            RequestError: `queue_full`, with the seconds after which there should be room.
        """
        wait = self._workers.predicted_wait((rows - 1) * self._cost)
        left = deadline - perf_counter()
        if self.pending + rows > self.max_queue or (wait > 0 and wait + self._cost > _TRUST * left):
            raise RequestError(
                Reason.QUEUE_FULL,
                f"{self.pending} requests wait for this model (of at most {self.max_queue}), all work ahead"
                f"{f', these {rows} rows included,' if rows > 1 else ''} takes "
                f"about {wait:.2g} s, and the deadline is in {left:.2g} s. "
                "Try again later, allow more time, or add capacity.",
                retry_after=max(1, ceil(wait)),
            )

    def submit(self, job: AnyJob) -> None:
        """Take a job in, or refuse it at once; see `check`."""
        self.check(job.deadline)
        job.cost = self._cost * job.input.rows
        self.pending += 1
        if not self._assembly.prepares:
            with self._lock:
                self._assembly.add(job)
        self._workers.submit(job, self)

    def process(self, job: AnyJob) -> None:
        """Get a job ready, then run batches for as long as a run may start and jobs are ready.

        A job that came prepared may have been in another thread's batch already.
        """
        prepares = self._assembly.prepares
        if prepares and not self._prepare(job):
            self._deliver([job])
            return
        with self._lock:
            if prepares:
                self._assembly.add(job)
            if self._runs >= self.max_runs:
                return  # the thread that ends one of the runs under way takes this job along
            self._runs += 1
        if self._lanes is None:
            self._run_batches()
        else:
            self._lanes.submit(self._run_on_lane)

    def take_over(self, jobs: Jobs, *, running: bool) -> None:
        """Refuse the jobs of a thread that was replaced, and run what is ready, in its place where it held a run.

        They count as pending until that thread returns: the row or the memory that they are in is still in use.
        """
        self._workers.deliver(jobs, self._refuse)
        if running:
            self._run_batches()

    def settle(self, jobs: Jobs) -> None:
        """Resolve the futures of finished jobs, and learn what a row costs: its preparation, and its share of a run.

        The cost is the time of one core.
        """
        self._workers.settled(jobs)
        for job in jobs:
            self.pending -= 1
            if not (job.failed or job.abandoned):
                run = (job.finished - job.run) * job.threads
                cost = job.prepared - job.started + run / job.batch_size
                self._cost += _SMOOTHING * (cost - self._cost)
            job.settle()

    def _refuse(self, jobs: Jobs) -> None:
        """Answer the requests whose jobs take too long."""
        for job in jobs:
            job.abandoned = True
            job.time_out()

    def _prepare(self, job: AnyJob) -> bool:
        """Say whether a job is ready, and whether this thread was not replaced meanwhile."""
        job.started = perf_counter()
        if job.worth_doing():
            try:
                self._assembly.prepare(job)
            except Exception as error:
                job.fail(error)
        job.prepared = perf_counter()
        return self._workers.go_on() and not job.failed

    def _next_batch(self) -> list[AnyJob]:
        """Take the jobs of the next batch. If there are none, this thread's run ends under the same lock.

        So a job that is added right after that starts a run itself, and none is left behind.
        """
        with self._lock:
            batch = self._assembly.next_batch(self.max_batch)
            if not batch:
                self._runs -= 1
            return batch

    def _run_batches(self) -> None:
        """Run what is ready until nothing is, or until this thread is replaced: its successor has the run then."""
        while batch := self._next_batch():
            self._workers.begin(self, batch, running=True)
            for jobs, outputs in self._compute(batch):
                self._answer(jobs, outputs)
            kept = self._workers.go_on()
            self._deliver(batch)
            if not kept:
                return

    def _run_on_lane(self, run: Run) -> None:
        """Run what is ready until nothing is, and let workers make the answers."""
        while batch := self._next_batch():
            with self._workers.watched(self, batch):
                computed = self._compute(batch, run)
            self._assembly.release(batch)
            if failed := [job for job in batch if job.failed]:
                self._workers.deliver(failed, self.settle)
            for jobs, outputs in computed:
                part = max(_FEWEST, ceil(len(jobs) / self._workers.size))
                for first in range(0, len(jobs), part):
                    some, row = jobs[first : first + part], sum([job.input.rows for job in jobs[:first]])
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
                for job in jobs:
                    job.fail(error)
                return []
            half = len(jobs) // 2
            if isinstance(error, MemoryError) and half < self.max_batch:
                self.max_batch = half
                logger.warning("out of memory with %d jobs: batches of up to %d from now on", len(jobs), half)
            return self._run_jobs(jobs[:half], run) + self._run_jobs(jobs[half:], run)
        size = sum([job.input.rows for job in jobs])
        for job in jobs:
            job.run, job.ran, job.threads, job.batch_size = start, end, threads, size
        self._observe_batch(size)
        return [(jobs, outputs)]

    def _finish(self, jobs: Jobs, outputs: Tensors, row: int) -> None:
        """Answer jobs that a lane has run."""
        self._answer(jobs, outputs, row)
        self._workers.deliver(jobs, self.settle)

    def _answer(self, jobs: Jobs, outputs: Tensors, row: int = 0) -> None:
        """Cut the answers of jobs out of the outputs of their run, from a row on."""
        for job in jobs:
            try:
                job.succeed(job.input.answer(outputs, row))
            except Exception as error:
                job.fail(error)
            row += job.input.rows

    def _deliver(self, jobs: Jobs) -> None:
        """Give back what jobs hold, and let the event loop settle them."""
        self._assembly.release(jobs)
        self._workers.deliver(jobs, self.settle)
