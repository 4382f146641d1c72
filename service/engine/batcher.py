"""One model's queue: whatever is ready when a run may start goes into one batch. No waiting for company, ever.

`submit` and `settle` run on the event loop, everything else on worker threads.
"""

import logging
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from math import ceil
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from service.engine.job import Job, Outputs
from service.engine.session import BrokenDeviceError
from service.engine.slots import Slots
from service.engine.workers import Workers
from service.errors import Reason, RequestError

logger = logging.getLogger(__name__)
Run = Callable[[npt.NDArray[np.uint8]], Outputs]
_SMOOTHING = 0.1  # weight of the newest picture in the moving average of a picture's cost
_TRUST = 0.8  # share of the time that is left, in which the predicted wait must end


class Batcher:
    """Turns single pictures into batches for `run`.

    Args:
        run: computes the outputs of uint8 [N, H, W, 3]; called from up to `max_runs` threads at once. A MemoryError
            makes batches smaller from then on.
        workers: the threads that prepare, run and finish.
        slots: where pictures are prepared; one that finds no place there is prepared on its own and run alone.
        max_batch: the most pictures that one run takes.
        max_runs: how many runs may be under way at once.
        max_queue: how many pictures may be under way, from submission to answer; more are refused.
        cost: seconds of work per picture to begin with; from then on it is measured.
        buckets: the batch sizes that `run` knows, rising; smaller batches are padded. Empty: any size.
        observe_batch: told the size of every batch that is run.
        on_broken: told of a device that can no longer be used; nothing is tried again then.
    """

    def __init__(
        self,
        run: Run,
        workers: Workers,
        slots: Slots,
        *,
        max_batch: int,
        max_runs: int,
        max_queue: int,
        cost: float,
        buckets: Sequence[int] = (),
        observe_batch: Callable[[int], None] = lambda _: None,
        on_broken: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.max_batch, self.max_runs, self.max_queue = max_batch, max_runs, max_queue
        self.pending = 0
        self._run = run
        self._workers = workers
        self._slots = slots
        self._cost = cost
        self._buckets = buckets
        self._observe_batch = observe_batch
        self._on_broken = on_broken
        self._ready: dict[int, Job[Any]] = {}  # by row, in the order in which they became ready
        self._runs = 0
        self._lock = threading.Lock()  # guards _ready and _runs

    def check(self, deadline: float) -> None:
        """Refuse what could not be answered in time, at once and before any work is done for it.

        A prediction is not exact: four fifths of the time that is left must suffice for the wait.

        Raises:
            RequestError: `queue_full`, with the seconds after which there should be room.
        """
        wait = self._workers.predicted_wait()
        left = deadline - perf_counter()
        if self.pending >= self.max_queue or (wait > 0 and wait + self._cost > _TRUST * left):
            raise RequestError(
                Reason.QUEUE_FULL,
                f"{self.pending} pictures wait for this model (of at most {self.max_queue}), all work ahead takes "
                f"about {wait:.2g} s, and the deadline is in {left:.2g} s. "
                "Try again later, allow more time, or add capacity.",
                retry_after=max(1, ceil(wait)),
            )

    def submit(self, job: Job[Any]) -> None:
        """Take a job in, or refuse it at once; see `check`."""
        self.check(job.deadline)
        job.cost = self._cost
        self.pending += 1
        self._workers.submit(job, self)

    def settle(self, jobs: Sequence[Job[Any]]) -> None:
        """Resolve the futures of finished jobs."""
        self._workers.settled(jobs)
        for job in jobs:
            self.pending -= 1
            if not job.failed:
                cost = job.prepared - job.started + (job.finished - job.run) / job.batch_size
                self._cost += _SMOOTHING * (cost - self._cost)
            job.settle()

    def process(self, job: Job[Any]) -> None:
        """Prepare one picture, then run batches for as long as a run may start and pictures are ready."""
        job.started = perf_counter()
        if job.worth_doing():
            job.row = self._slots.take()
            try:
                job.array = job.prepare(None if job.row is None else self._slots.rows[job.row])
            except Exception as error:
                job.fail(error)
        job.prepared = perf_counter()
        if job.failed:
            self._deliver([job])
            return
        with self._lock:
            self._ready[-id(job) if job.row is None else job.row] = job
            if self._runs >= self.max_runs:
                return  # runs are under way; whoever ends one takes this job along
            self._runs += 1
        while batch := self._next_batch():
            try:
                for jobs in _neighbours(batch):
                    self._run_jobs(jobs)
            except BaseException as error:  # a bug in this file: its jobs are answered, and its run is given up
                logger.exception("a batch ended in an unexpected error")
                for left in batch:
                    left.fail(error)
            self._deliver(batch)

    def _next_batch(self) -> list[Job[Any]]:
        """Take the job that is ready for longest and its neighbours; none left: the run's place is given up."""
        with self._lock:
            row = next(iter(self._ready), None)
            if row is None:
                self._runs -= 1
                return []
            first, last = row, row + 1
            while first - 1 in self._ready and last - first < self.max_batch:
                first -= 1
            while last in self._ready and last - first < self.max_batch:
                last += 1
            return [self._ready.pop(row) for row in range(first, last)]

    def _run_jobs(self, jobs: Sequence[Job[Any]]) -> None:
        """Run neighbours as one batch. Where that fails, they are run in halves, down to the one that is to blame."""
        self._workers.beat()
        start = perf_counter()
        try:
            outputs = self._run(self._images(jobs))
        except Exception as error:
            if isinstance(error, BrokenDeviceError):
                self._on_broken(str(error))
            if len(jobs) == 1 or isinstance(error, BrokenDeviceError):
                for job in jobs:
                    job.fail(error)
                return
            half = len(jobs) // 2
            if isinstance(error, MemoryError) and half < self.max_batch:
                self.max_batch = half
                logger.warning("out of memory with %d pictures: batches of up to %d from now on", len(jobs), half)
            self._run_jobs(jobs[:half])
            self._run_jobs(jobs[half:])
            return
        end = perf_counter()
        self._observe_batch(len(jobs))
        for index, job in enumerate(jobs):
            job.batch_size, job.run, job.ran = len(jobs), start, end
            try:
                job.succeed(job.finish(outputs, index))
            except Exception as error:
                job.fail(error)

    def _images(self, jobs: Sequence[Job[Any]]) -> npt.NDArray[np.uint8]:
        """The batch, as it lies in the slots, with what lies behind it up to the size of the next bucket."""
        size, row = len(jobs), jobs[0].row
        if self._buckets:
            size = self._buckets[bisect_left(self._buckets, size)]
        if row is not None:
            return self._slots.rows[row : row + size]
        assert jobs[0].array is not None  # noqa: S101 - prepared on its own
        return np.repeat(jobs[0].array[None], size, axis=0) if size > 1 else jobs[0].array[None]

    def _deliver(self, jobs: Sequence[Job[Any]]) -> None:
        for job in jobs:
            job.array = None
            if job.row is not None:
                self._slots.free(job.row)
        self._workers.deliver(jobs, self)


def _neighbours(batch: Sequence[Job[Any]]) -> Iterator[list[Job[Any]]]:
    """Split a batch at the jobs that are no longer worth doing, which fail."""
    jobs: list[Job[Any]] = []
    for job in batch:
        if job.worth_doing():
            jobs.append(job)
        elif jobs:
            yield jobs
            jobs = []
    if jobs:
        yield jobs
