"""One model's queue: whatever is ready when a run may start goes into one batch. No waiting for company, ever.

`submit` and `settle` run on the event loop, everything else on worker threads.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from math import ceil
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from service.engine.job import Job, Outputs
from service.engine.workers import Workers
from service.errors import Reason, RequestError

logger = logging.getLogger(__name__)
Run = Callable[[npt.NDArray[np.uint8]], Outputs]
_SMOOTHING = 0.1  # weight of the newest picture in the moving average of a picture's cost


class Batcher:
    """Turns single pictures into batches for `run`.

    Args:
        run: computes the outputs of uint8 [N, H, W, 3]; called from up to `max_runs` threads at once.
        workers: the threads that prepare, run and finish.
        max_batch: the most pictures that one run takes.
        max_runs: how many runs may be under way at once.
        max_queue: how many pictures may be under way, from submission to answer; more are refused.
        cost: seconds of work per picture to begin with; from then on it is measured.
        observe_batch: told the size of every batch that is run.
    """

    def __init__(
        self,
        run: Run,
        workers: Workers,
        *,
        max_batch: int,
        max_runs: int,
        max_queue: int,
        cost: float,
        observe_batch: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.max_batch, self.max_runs, self.max_queue = max_batch, max_runs, max_queue
        self.pending = 0
        self._run = run
        self._workers = workers
        self._cost = cost
        self._observe_batch = observe_batch
        self._ready: deque[Job[Any]] = deque()
        self._runs = 0
        self._lock = threading.Lock()  # guards _ready and _runs

    def submit(self, job: Job[Any]) -> None:
        """Take a job in, or refuse it at once.

        Raises:
            RequestError: `queue_full`, with the seconds after which there should be room.
        """
        wait = self._workers.predicted_wait()
        if self.pending >= self.max_queue or job.submitted + wait > job.deadline:
            raise RequestError(
                Reason.QUEUE_FULL,
                f"{self.pending} pictures wait for this model, about {wait:.2g} s of work. "
                "Try again later, or add capacity.",
                retry_after=max(1, ceil(wait)),
            )
        job.cost = self._cost
        self.pending += 1
        self._workers.backlog += job.cost
        self._workers.submit(job, self)

    def settle(self, jobs: Sequence[Job[Any]]) -> None:
        """Resolve the futures of finished jobs."""
        for job in jobs:
            self.pending -= 1
            self._workers.backlog -= job.cost
            if not job.failed:
                cost = job.prepared - job.started + (job.finished - job.run) / job.batch_size
                self._cost += _SMOOTHING * (cost - self._cost)
            job.settle()

    def process(self, job: Job[Any]) -> None:
        """Prepare one picture, then run batches for as long as a run may start and pictures are ready."""
        job.started = perf_counter()
        if job.worth_doing():
            try:
                job.array = job.prepare()
            except Exception as error:
                job.fail(error)
        job.prepared = perf_counter()
        if job.failed:
            self._workers.deliver([job], self)
            return
        with self._lock:
            self._ready.append(job)
            if self._runs >= self.max_runs:
                return  # a run is under way; whoever ends it takes this job along
            self._runs += 1
        while batch := self._next_batch():
            try:
                self._run_batch(batch)
            except (
                BaseException
            ) as error:  # a bug in this file: its jobs must still be answered, and its run be given up
                logger.exception("a batch ended in an unexpected error")
                for left in batch:
                    left.fail(error)
            self._workers.deliver(batch, self)

    def _next_batch(self) -> list[Job[Any]]:
        """Take up to `max_batch` jobs; none left means that the run's place is given up."""
        with self._lock:
            batch = [self._ready.popleft() for _ in range(min(self.max_batch, len(self._ready)))]
            if not batch:
                self._runs -= 1
            return batch

    def _run_batch(self, batch: Sequence[Job[Any]]) -> None:
        jobs = [job for job in batch if job.worth_doing()]
        if not jobs:
            return
        start = perf_counter()
        try:
            outputs = self._run(np.stack([job.array for job in jobs]) if len(jobs) > 1 else jobs[0].array[None])  # type: ignore[index,misc]
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].fail(error)
            else:  # one of them may be the cause: each gets a run of its own
                for job in jobs:
                    self._run_batch([job])
            return
        end = perf_counter()
        self._observe_batch(len(jobs))
        for index, job in enumerate(jobs):
            job.array = None
            job.batch_size, job.run, job.ran = len(jobs), start, end
            try:
                job.succeed(job.finish(outputs, index))
            except Exception as error:
                job.fail(error)
