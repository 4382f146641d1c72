"""What every model's queue does, wherever its graph is run: refuses in time, prepares, makes answers, settles.

`batcher` runs jobs in this process, `service.fronts.remote` sends them to the process that has the graph.

Threads: `check`, `submit`, `enter` and `settle` run on the event loop, which alone changes `pending` and the expected
cost of a row. All else runs on worker threads.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from math import ceil
from time import perf_counter

from service.engine.job import AnyJob, Jobs, time_out, too_slow
from service.engine.workers import Workers
from service.errors import Reason, RequestError

_SMOOTHING = 0.1  # weight of the newest job in the moving average of the cost of a row
_FEWEST = 8  # jobs whose answers one worker makes: to wake another for fewer is not worth it
_TRUST = 0.8  # share of the time that is left, in which the predicted wait must end


class Admission(ABC):
    """Where a model's jobs are taken in, or refused.

    Args:
        max_queue: how many jobs may be under way, from submission to answer; more are refused.
    """

    def __init__(self, max_queue: int) -> None:
        self.max_queue = max_queue

    @property
    @abstractmethod
    def pending(self) -> int:
        """Jobs that were submitted in this process and are not settled."""

    @property
    @abstractmethod
    def cost(self) -> float:
        """Seconds of work that a row is expected to take, in all processes."""

    @abstractmethod
    def wait(self, rows: int = 1) -> float:
        """Seconds until work would begin for the last of some rows that are submitted now."""

    @abstractmethod
    def waiting(self) -> int:
        """How many jobs of the model are under way, in all processes."""

    @abstractmethod
    def enter(self, job: AnyJob) -> None:
        """Take a job in without looking at its deadline. Only on the event loop."""

    @property
    def full(self) -> bool:
        """Whether there is no place for a job."""
        return self.waiting() >= self.max_queue

    def check(self, deadline: float, rows: int = 1) -> None:
        """Refuse what could not be answered in time, at once and before any work is done for it.

        Several rows, each a job, are refused together: the last of them waits for the others.

        The predicted wait is an average, so it may be too short: wait and work must fit into four fifths of the time
        that is left. Where nothing waits nothing is refused, however short the time.

        Raises:
            RequestError: `queue_full`, with the seconds after which there should be room; `deadline`, if it has passed
                and there is work ahead.
        """
        wait, waiting = self.wait(rows), self.waiting()
        left = deadline - perf_counter()
        if left <= 0 < wait:
            raise RequestError(Reason.DEADLINE, "The deadline passed before the request had arrived. Allow more time.")
        if waiting + rows > self.max_queue or (wait > 0 and wait + self.cost > _TRUST * left):
            raise RequestError(
                Reason.QUEUE_FULL,
                f"{waiting} requests wait for this model (of at most {self.max_queue}), all work ahead"
                f"{f', these {rows} rows included,' if rows > 1 else ''} takes "
                f"about {wait:.2g} s, and the deadline is in {left:.2g} s. "
                "Try again later, allow more time, or add capacity.",
                retry_after=max(1, ceil(wait)),
            )

    def submit(self, job: AnyJob) -> None:
        """Take a job in, or refuse it at once; see `check`."""
        self.check(job.deadline)
        self.enter(job)


class Intake(Admission):
    """A model's jobs under way.

    Args:
        workers: the threads of this process; all models share them.
        max_queue: see `Admission`.
        cost: seconds of this process' work per row to begin with; from then on it is measured.

    Attributes:
        pending: jobs that were submitted and are not settled.
    """

    pending: int = 0

    def __init__(self, workers: Workers, *, max_queue: int, cost: float) -> None:
        super().__init__(max_queue)
        self._workers = workers
        self._cost = cost

    @property
    def cost(self) -> float:
        return self._cost

    def wait(self, rows: int = 1) -> float:
        """Seconds until work would begin for the last of some rows that are submitted now.

        It is predicted from the work ahead of all models (`Workers.predicted_wait`), for they share the workers.
        """
        return self._workers.predicted_wait((rows - 1) * self._cost)

    def waiting(self) -> int:
        return self.pending

    def enter(self, job: AnyJob) -> None:
        self._count(job)
        self._workers.put(job, self)

    @abstractmethod
    def process(self, job: AnyJob) -> None:
        """Do a job, or its first part. On a worker thread."""

    def take_over(self, jobs: Jobs, *, running: bool) -> None:  # noqa: ARG002 - only a batcher has runs
        """Refuse the jobs of a thread that was replaced."""
        self._workers.deliver(jobs, time_out)

    def settle(self, jobs: Jobs) -> None:
        """Resolve the futures of finished jobs, and learn what a row costs."""
        self._workers.settled(jobs)
        for job in jobs:
            self.pending -= 1
            if not (job.failed or job.abandoned):
                self._cost += _SMOOTHING * (self._cost_of(job) - self._cost)
            job.settle()

    def _cost_of(self, job: AnyJob) -> float:
        """What a finished job cost per row: its preparation, and its share of a run; the time of one core."""
        return job.prepared - job.started + (job.finished - job.run) * job.threads / job.batch_size

    def _count(self, job: AnyJob) -> None:
        """Count a job that is submitted."""
        job.cost = self._cost * job.input.rows
        self.pending += 1
        self._workers.count(job)

    def _prepare(self, job: AnyJob) -> bool:
        """Say whether a job is ready, and whether this thread was not replaced meanwhile."""
        job.started = perf_counter()
        if job.worth_doing():
            try:
                self._make_ready(job)
            except BaseException as error:
                job.fail(error)
        job.prepared = perf_counter()
        if not self._workers.go_on() and not job.failed:
            job.fail(too_slow())  # else it could be settled, without an answer, before it is refused
        return not job.failed

    def _deliver(self, jobs: Jobs) -> None:
        """Give back what jobs hold, and let the event loop settle them."""
        self._release(jobs)
        self._workers.deliver(jobs, self.settle)

    @abstractmethod
    def _make_ready(self, job: AnyJob) -> None:
        """Get a job ready; raises what is wrong with the input."""

    @abstractmethod
    def _release(self, jobs: Jobs) -> None:
        """Give back what jobs hold."""


def parts_of(jobs: Jobs, workers: int) -> Iterator[tuple[Jobs, int]]:
    """Share the jobs of a batch out among workers, which make their answers: some jobs, and the row of the first."""
    part = max(_FEWEST, ceil(len(jobs) / workers))
    for first in range(0, len(jobs), part):
        yield jobs[first : first + part], sum([job.input.rows for job in jobs[:first]])
