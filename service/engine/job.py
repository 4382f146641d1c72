"""A job: one request's input on its way through the engine, with its own clock. Also what an input is.

The predictor makes jobs, workers run them, and the event loop resolves their futures.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import IntEnum
from time import perf_counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, Optional, Protocol, TypeVar

from service.arrays import Image, Tensors
from service.errors import Reason, RequestError

if TYPE_CHECKING:
    from service.engine.intake import Admission

AnswerT = TypeVar("AnswerT")
Span = tuple[str, float, float]
"""A stage, its start and its end, as `time.perf_counter()`."""


class Priority(IntEnum):
    """Who goes first among the jobs that wait."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


class Holder(Protocol):
    """Where a job is that is run in another process."""

    def give_up(self, job: "AnyJob") -> None:
        """Tell the other process that nobody waits for the job any more. On the event loop."""


class Input(ABC, Generic[AnswerT]):
    """What is to be computed, and how the answer is cut out of a batch's outputs: an image, or rows of tensors.

    Attributes:
        rows: how many rows of a batch it takes.
        tensors: the graph's inputs by name, each [rows, ...], where they came as such; an image has none.
        shapes: of `tensors` without the rows. Only inputs with equal shapes can be in one batch.
        light: its answer takes a fraction of a millisecond, so that to wake another thread for it would cost as much.
    """

    __slots__ = ()
    rows: int = 1
    tensors: Tensors = MappingProxyType({})
    shapes: tuple[tuple[int, ...], ...] = ()
    light: bool = False

    def write(self, out: Image, *, jpegs: bool = False) -> int:  # noqa: ARG002 - tensors come written
        """Write an image into `out`, uint8 [H, W, 3]: its pixels, or its file. On a worker thread.

        Args:
            out: what the run takes.
            jpegs: the run decodes JPEGs: their files may be written.

        Returns:
            The bytes of the file; 0: there are pixels.

        Raises:
            RequestError: `undecodable`, `not_an_image` or `too_large`.
        """
        return 0

    @abstractmethod
    def answer(self, outputs: Tensors, row: int) -> AnswerT:
        """Make the answer from a batch's outputs, of which those from `row` on belong to this input. On a worker."""

    def enter(self, queue: "Admission", job: "Job[AnswerT]") -> None:
        """Queue the job of this input; raises `RequestError` (`queue_full`). On the event loop."""
        queue.submit(job)


class Job(Generic[AnswerT]):
    """One input on its way. Times are `time.perf_counter()` in seconds; 0 until they are known.

    Attributes:
        input: what is computed.
        deadline: after this moment the job is not worth any work.
        priority: among the jobs that wait.
        future: resolves on the event loop to the answer, or to the error.
        abandoned: nobody waits for the answer any more, as the client hung up or its deadline passed.
        cost: seconds of work that the batcher expected of it.
        row: of the image buffer in which the image lies; -1: none.
        holder: is told when it is abandoned; None: it is in this process.
        batch_size: rows of the batch that it was part of.
        concurrent: how many jobs were under way when it was submitted, itself included.
        threads: of the run of its batch.
        whole: the job that needs the answer of this one, if it is a part of another's work that is not done.
        after: the job of another image of the same request, after which this one begins if its answer takes several.
        steps: the jobs that this one needed, by step; each step began when the one before had ended.
        submitted: when it was submitted.
        started: when a worker began to prepare it; of tensors, when they were taken into a batch.
        prepared: when it was ready for a batch.
        run: when the run of its batch began.
        ran: when that run ended.
        finished: when the answer or the error was known.
        finishing: seconds of work that the answer took after the run, where they are counted.
    """

    __slots__ = (
        "_answer",
        "_error",
        "abandoned",
        "after",
        "batch_size",
        "concurrent",
        "cost",
        "deadline",
        "finished",
        "finishing",
        "future",
        "holder",
        "input",
        "prepared",
        "priority",
        "ran",
        "row",
        "run",
        "started",
        "steps",
        "submitted",
        "threads",
        "whole",
    )

    def __init__(
        self,
        input_: Input[AnswerT],
        deadline: float,
        priority: Priority = Priority.NORMAL,
        whole: Optional["AnyJob"] = None,
    ) -> None:
        self.input = input_
        self.deadline = deadline
        self.priority = priority
        self.future: asyncio.Future[AnswerT] = asyncio.get_running_loop().create_future()
        self.abandoned = False
        self.whole = whole
        self.after: AnyJob | None = None
        self.steps: list[Jobs] = []
        self.cost = 0.0
        self.row = -1
        self.holder: Holder | None = None
        self.batch_size = 0
        self.concurrent = self.threads = 1
        self._answer: AnswerT | None = None
        self._error: BaseException | None = None
        self.submitted = perf_counter()
        self.started = self.prepared = self.run = self.ran = self.finished = self.finishing = 0.0

    @property
    def failed(self) -> bool:
        """Whether an error is to be delivered."""
        return self._error is not None

    def worth_doing(self) -> bool:
        """Whether anybody still waits for the answer; a job that was abandoned or is past its deadline fails here."""
        whole = self.whole  # the event loop sets it to None when that job is done
        if self.abandoned or (whole is not None and whole.abandoned):
            self.fail(RequestError(Reason.DEADLINE, "The client hung up before its request was computed."))
        elif perf_counter() > self.deadline:
            self.fail(
                RequestError(
                    Reason.DEADLINE,
                    f"The deadline passed after {self.deadline - self.submitted:.3g} s of waiting. Send less at once, "
                    "allow more time, or add capacity.",
                )
            )
        return self._error is None

    def abandon(self) -> None:
        """Note that nobody waits for the answer any more. On the event loop."""
        self.abandoned = True
        if self.holder is not None:
            self.holder.give_up(self)

    def fail(self, error: BaseException) -> None:
        """Keep the error that the job ends with.

        A panic of a library in Rust is no `Exception`: it would end the task of the request, and so it becomes one. So
        does a `StopIteration`, which no future takes.
        """
        if not isinstance(error, Exception) or isinstance(error, StopIteration):
            panic, error = error, RuntimeError(f"{type(error).__name__}: {error}")
            error.__cause__ = panic
        self._error = error
        self.finished = perf_counter()

    def succeed(self, answer: AnswerT) -> None:
        """Keep the answer."""
        self._answer = answer
        self.finished = perf_counter()

    def time_out(self) -> None:
        """Resolve the future of a job whose thread takes too long and was replaced. Only on the event loop."""
        if self.finished:
            self.settle()
        elif not self.future.done():
            self.future.set_exception(too_slow())

    def settle(self) -> None:
        """Resolve the future. Only on the event loop; a future that was cancelled or timed out is left as it is."""
        if self.future.done():
            return
        if self._error is not None:
            self.future.set_exception(self._error)
            if self.abandoned:
                self.future.exception()  # else asyncio would log that nobody has read it
        else:
            self.future.set_result(self._answer)  # type: ignore[arg-type]  # one of the two is set before settling

    def spans(self) -> list[Span]:
        """What happened to the job, from its submission to its answer. It waits twice: for a worker, and for a run."""
        if self.steps:
            answered = [[job for job in step if not job.failed] for step in self.steps]  # others were perhaps never run
            last = [max(step, key=lambda job: job.finished) for step in answered if step]
            begun = ("queue", self.submitted, self.steps[0][0].submitted)
            return [span for span in [begun, *(x for job in last for x in job.spans())] if span[2] > span[1]]
        return [
            ("queue", self.submitted, self.started),
            ("decode", self.started, self.prepared),
            ("queue", self.prepared, self.run),
            ("infer", self.run, self.ran),
            ("postprocess", self.ran, self.finished),
        ]


def too_slow() -> RequestError:
    """Return the error of a job whose thread takes too long."""
    return RequestError(Reason.DEADLINE, "The image, or its run, took longer than ZOOSERVE_WORK_S allows.")


AnyJob = Job[Any]
"""A job, whatever its answer is: the engine does not look at it."""
Jobs = Sequence[AnyJob]


def time_out(jobs: Jobs) -> None:
    """Answer the requests whose jobs take too long. Only on the event loop."""
    for job in jobs:
        job.abandoned = True
        job.time_out()


class Consumer(Protocol):
    """Whose jobs the workers do: a model's batcher."""

    def process(self, job: AnyJob) -> None:
        """Do a job, and whatever has become possible with it. On a worker thread."""

    def settle(self, jobs: Jobs) -> None:
        """Resolve the futures of finished jobs. On the event loop."""

    def take_over(self, jobs: Jobs, *, running: bool) -> None:
        """Refuse the jobs of a thread that was replaced, and do its work. On the worker that replaces it.

        Of a thread that only takes long so far no job is refused (there are none), and another worker does its work.
        Where the thread is a lane, on the thread that watches, and never `running`: the lane keeps its run.
        """


def jobs_in_batches(jobs: Jobs) -> list[AnyJob]:
    """Return those jobs that were part of batches: the jobs themselves, or what they needed."""
    return [part for job in jobs for step in job.steps or [[job]] for part in step if part.batch_size]
