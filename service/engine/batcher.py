"""One model's queue: whatever is ready when a run may start goes into one batch. No waiting for company, ever."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from service.engine.batching import Batching
from service.engine.image_buffer import ImageBuffer
from service.engine.job import Job, Outputs
from service.engine.workers import Workers

Run = Callable[[npt.NDArray[np.uint8]], Outputs]


class Batcher(Batching):
    """Turns single pictures into batches for `run`.

    Args:
        run: computes the outputs of uint8 [N, H, W, 3]; called from up to `max_runs` threads at once. A MemoryError
            makes batches smaller from then on.
        workers: the threads that prepare, run and finish.
        slots: where pictures are prepared; one that finds no place there is prepared on its own and run alone.
        buckets: the batch sizes that `run` knows, rising; smaller batches are padded. Empty: any size.
        limits: as of `Batching`.
    """

    def __init__(
        self, run: Run, workers: Workers, slots: ImageBuffer, *, buckets: Sequence[int] = (), **limits: Any
    ) -> None:
        super().__init__(workers, **limits)
        self._run = run
        self._slots = slots
        self._buckets = buckets
        self._ready: dict[int, Job[Any]] = {}  # by row, in the order in which they became ready

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
        kept = self._workers.go_on()
        if job.failed or not kept:
            self._deliver([job])
            return
        with self._lock:
            self._ready[-id(job) if job.row is None else job.row] = job
            if self._runs >= self.max_runs:
                return  # runs are under way; whoever ends one takes this job along
            self._runs += 1
        self._run_batches()

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

    def _parts(self, batch: Sequence[Job[Any]]) -> Iterator[list[Job[Any]]]:
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

    def _compute(self, jobs: Sequence[Job[Any]]) -> Outputs:
        """Run the batch as it lies in the slots, with what lies behind it up to the size of the next bucket."""
        size, row = len(jobs), jobs[0].row
        if self._buckets:
            size = self._buckets[bisect_left(self._buckets, size)]
        if row is not None:
            return self._run(self._slots.rows[row : row + size])
        assert jobs[0].array is not None  # noqa: S101 - prepared on its own
        return self._run(np.repeat(jobs[0].array[None], size, axis=0) if size > 1 else jobs[0].array[None])

    def _finish(self, jobs: Sequence[Job[Any]], outputs: Outputs, start: float, end: float) -> None:
        self._observe_batch(len(jobs))
        for index, job in enumerate(jobs):
            job.batch_size, job.run, job.ran = len(jobs), start, end
            try:
                job.succeed(job.finish(outputs, index))
            except Exception as error:
                job.fail(error)

    def _deliver(self, jobs: Sequence[Job[Any]]) -> None:
        for job in jobs:
            job.array = None
            if job.row is not None:
                self._slots.free(job.row)
        super()._deliver(jobs)
