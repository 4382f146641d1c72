"""Runs functions on the workers, as jobs like those of a model: decoding an image for many jobs, merging their answers.

They have a priority and a deadline, are part of the work ahead that admission sees, and are refused if they take too
long.
"""

from collections.abc import Callable
from time import perf_counter
from typing import Literal

from service.arrays import Tensors
from service.engine.job import AnswerT, Input, Job, Jobs, time_out
from service.engine.workers import Workers
from service.limits import PixelMemory

_SMOOTHING = 0.1  # weight of the newest call in the moving average of the cost
Stage = Literal["decode", "postprocess"]
AtEnd = Callable[[], None]


def nothing() -> None:
    """Do nothing at the end of a call."""


class Call(Input[AnswerT]):
    """A function without arguments; its answer is what it returns.

    Args:
        stage: of the request, to which its time is counted.
        work: the function.
        at_end: called on the event loop when it has returned, also if its request has ended long before.
    """

    __slots__ = ("_work", "at_end", "stage")

    def __init__(self, stage: Stage, work: Callable[[], AnswerT], at_end: AtEnd = nothing) -> None:
        self.stage = stage
        self.at_end = at_end
        self._work = work

    def answer(self, outputs: Tensors, row: int) -> AnswerT:  # noqa: ARG002 - no run is needed
        """Call the function."""
        return self._work()


class Calls:
    """The calls under way in a process.

    Args:
        workers: that make them.
        memory: of the images that are decoded by calls.

    Attributes:
        memory: the same.
    """

    def __init__(self, workers: Workers, memory: PixelMemory) -> None:
        self.memory = memory
        self._workers = workers
        self._cost = 0.0  # seconds of a call, on average

    def submit(self, job: Job[AnswerT]) -> None:
        """Queue the job of a `Call`. Only on the event loop."""
        job.cost = self._cost
        self._workers.count(job)
        self._workers.put(job, self)

    def process(self, job: Job[AnswerT]) -> None:
        """Make a call."""
        job.started = perf_counter()
        if job.worth_doing():
            try:
                job.succeed(job.input.answer({}, 0))
            except BaseException as error:
                job.fail(error)
        decodes = isinstance(job.input, Call) and job.input.stage == "decode"
        job.prepared = job.run = job.ran = job.finished if decodes else job.started
        self._workers.deliver([job], self.settle)

    def settle(self, jobs: Jobs) -> None:
        """Resolve the futures of calls that are made, and learn what one costs."""
        self._workers.settled(jobs)
        for job in jobs:
            if not job.failed:
                self._cost += _SMOOTHING * (job.finished - job.started - self._cost)
            job.settle()
            if isinstance(job.input, Call):
                job.input.at_end()

    def take_over(self, jobs: Jobs, *, running: bool) -> None:  # noqa: ARG002 - a call has no run
        """Refuse the calls of a thread that was replaced."""
        self._workers.deliver(jobs, time_out)
