"""What every queue before a model does: refuse in time, run batches while there are any, find the one that is to blame.

`batcher` makes it one for pictures, `tensors` one for tensors. `submit` and `settle` run on the event loop, everything
else on worker threads.
"""

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from math import ceil
from time import perf_counter
from typing import Any

from service.engine.graph import BrokenDeviceError
from service.engine.job import Job, Outputs
from service.engine.workers import Workers
from service.errors import Reason, RequestError

logger = logging.getLogger(__name__)
_SMOOTHING = 0.1  # weight of the newest job in the moving average of a job's cost
_TRUST = 0.8  # share of the time that is left, in which the predicted wait must end


class Batching(ABC):
    """A model's jobs under way, and the runs that answer them.

    Args:
        workers: the threads that prepare, run and finish.
        max_batch: the most pictures, or rows, that one run takes.
        max_runs: how many runs may be under way at once.
        max_queue: how many jobs may be under way, from submission to answer; more are refused.
        cost: seconds of work per job to begin with; from then on it is measured.
        observe_batch: told the size of every batch that is run.
        on_broken: told of a device that can no longer be used; nothing is tried again then.
    """

    def __init__(
        self,
        workers: Workers,
        *,
        max_batch: int,
        max_runs: int,
        max_queue: int,
        cost: float,
        observe_batch: Callable[[int], None] = lambda _: None,
        on_broken: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.max_batch, self.max_runs, self.max_queue = max_batch, max_runs, max_queue
        self.pending = 0
        self._workers = workers
        self._cost = cost
        self._observe_batch = observe_batch
        self._on_broken = on_broken
        self._runs = 0
        self._lock = threading.Lock()  # guards _runs, and the jobs that are ready

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

    def take_over(self, jobs: Sequence[Job[Any]], *, running: bool) -> None:
        """Refuse the jobs of a thread that was replaced, and run what is ready, in its place where it held a run.

        They stay on the books until the thread returns: what they are in, a row or a run's memory, is still in use.
        """
        self._workers.deliver(jobs, self._refuse)
        if running:
            self._run_batches()

    def settle(self, jobs: Sequence[Job[Any]]) -> None:
        """Resolve the futures of finished jobs."""
        self._workers.settled(jobs)
        for job in jobs:
            self.pending -= 1
            if not (job.failed or job.abandoned):
                cost = job.prepared - job.started + (job.finished - job.run) / job.batch_size
                self._cost += _SMOOTHING * (cost - self._cost)
            job.settle()

    @abstractmethod
    def process(self, job: Job[Any]) -> None:
        """Get one job ready, then `_run_batches` if a run may start."""

    @abstractmethod
    def _next_batch(self) -> list[Job[Any]]:
        """Take the jobs of the next batch; none left: the run's place is given up."""

    @abstractmethod
    def _parts(self, batch: Sequence[Job[Any]]) -> Iterable[Sequence[Job[Any]]]:
        """Split a batch into what can be run together, without the jobs that are no longer worth doing."""

    @abstractmethod
    def _compute(self, jobs: Sequence[Job[Any]]) -> Outputs:
        """Run jobs as one batch."""

    @abstractmethod
    def _finish(self, jobs: Sequence[Job[Any]], outputs: Outputs, start: float, end: float) -> None:
        """Answer jobs that were run from `start` to `end`."""

    def _deliver(self, jobs: Sequence[Job[Any]]) -> None:
        self._workers.deliver(jobs, self.settle)

    def _refuse(self, jobs: Sequence[Job[Any]]) -> None:
        """Answer the requests whose jobs take too long. On the event loop."""
        for job in jobs:
            job.abandoned = True
            job.give_up()

    def _run_batches(self) -> None:
        """Run what is ready until nothing is, or until this thread is replaced: the run is another's then."""
        while batch := self._next_batch():
            self._workers.begin(self, batch, running=True)
            try:
                for jobs in self._parts(batch):
                    self._run_jobs(jobs)
            except BaseException as error:  # a bug of ours: its jobs are answered, and its run is given up
                logger.exception("a batch ended in an unexpected error")
                for left in batch:
                    left.fail(error)
            kept = self._workers.go_on()
            self._deliver(batch)
            if not kept:
                return

    def _run_jobs(self, jobs: Sequence[Job[Any]]) -> None:
        """Run jobs as one batch. Where that fails, they are run in halves, down to the one that is to blame."""
        start = perf_counter()
        try:
            outputs = self._compute(jobs)
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
                logger.warning("out of memory with %d jobs: batches of up to %d from now on", len(jobs), half)
            self._run_jobs(jobs[:half])
            self._run_jobs(jobs[half:])
            return
        self._finish(jobs, outputs, start, perf_counter())
