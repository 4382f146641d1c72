"""One picture on its way through the engine, with its own clock. Made by the predictor, settled on the event loop."""

import asyncio
from collections.abc import Callable, Mapping
from enum import IntEnum
from time import perf_counter
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from service.errors import Reason, RequestError

Outputs = Mapping[str, npt.NDArray[Any]]
AnswerT = TypeVar("AnswerT")
Span = tuple[str, float, float]  # a stage, from when to when


class Priority(IntEnum):
    """Who goes first among the jobs that wait for a worker."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


class Job(Generic[AnswerT]):
    """What to do with one picture, and how far it is.

    `prepare` makes the graph's input, uint8 [H, W, 3], in the array that it is given or in one of its own; `finish`
    turns the batch's outputs and this picture's index in them into the answer. Both run on a worker thread. Times are
    `time.perf_counter()` seconds.

    Attributes:
        row: of the batcher's slots in which the picture lies, if it found room there.
        deadline: after this moment the job is no longer worth any work.
        abandoned: nobody waits for the answer any more (the client hung up).
    """

    __slots__ = (
        "_answer",
        "_error",
        "_future",
        "abandoned",
        "array",
        "batch_size",
        "cost",
        "deadline",
        "finish",
        "finished",
        "prepare",
        "prepared",
        "priority",
        "ran",
        "row",
        "run",
        "started",
        "submitted",
    )

    def __init__(
        self,
        prepare: Callable[[npt.NDArray[np.uint8] | None], npt.NDArray[np.uint8]],
        finish: Callable[[Outputs, int], AnswerT],
        deadline: float,
        priority: Priority = Priority.NORMAL,
    ) -> None:
        self.prepare = prepare
        self.finish = finish
        self.deadline = deadline
        self.priority = priority
        self.abandoned = False
        self.array: npt.NDArray[np.uint8] | None = None
        self.row: int | None = None
        self.batch_size = 0
        self.cost = 0.0
        self._future: asyncio.Future[AnswerT] = asyncio.get_running_loop().create_future()
        self._answer: AnswerT | None = None
        self._error: BaseException | None = None
        self.submitted = perf_counter()
        self.started = self.prepared = self.run = self.ran = self.finished = 0.0

    @property
    def future(self) -> asyncio.Future[AnswerT]:
        """Resolves on the event loop to the answer, or to the error."""
        return self._future

    @property
    def failed(self) -> bool:
        """Whether an error is to be delivered."""
        return self._error is not None

    def worth_doing(self) -> bool:
        """Whether anybody still waits for the answer; a job past its deadline fails here."""
        if self.abandoned:
            self.fail(RequestError(Reason.DEADLINE, "The client hung up before its picture's turn came."))
        elif perf_counter() > self.deadline:
            self.fail(
                RequestError(
                    Reason.DEADLINE,
                    f"The deadline passed after {self.deadline - self.submitted:.3g} s of waiting. Send less at once, "
                    "allow more time, or add capacity.",
                )
            )
        return self._error is None

    def fail(self, error: BaseException) -> None:
        """Keep the error that the job ends with."""
        self._error = error
        self.finished = perf_counter()

    def succeed(self, answer: AnswerT) -> None:
        """Keep the answer."""
        self._answer = answer
        self.finished = perf_counter()

    def give_up(self) -> None:
        """Resolve the future although the job is still at work, which takes too long. Only on the event loop."""
        if self.finished:
            self.settle()
        elif not self._future.done():
            error = RequestError(Reason.DEADLINE, "The picture, or its run, took longer than ZOOSERVE_WORK_S allows.")
            self._future.set_exception(error)

    def settle(self) -> None:
        """Resolve the future. Only on the event loop; a future that was cancelled or timed out is left as it is."""
        if self._future.done():
            return
        if self._error is not None:
            self._future.set_exception(self._error)
        else:
            self._future.set_result(self._answer)  # type: ignore[arg-type]  # one of the two is set before settling

    def spans(self) -> list[Span]:
        """What happened to the job, from its submission to its answer. It waits twice: for a worker, and for a run."""
        return [
            ("queue", self.submitted, self.started),
            ("decode", self.started, self.prepared),
            ("queue", self.prepared, self.run),
            ("infer", self.run, self.ran),
            ("postprocess", self.ran, self.finished),
        ]
