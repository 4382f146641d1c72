"""Inputs whose answer takes several jobs: an image that is decoded once, and of which many parts are asked about.

    class Mine(Composite[Result]):
        async def compose(self, steps):
            size = await steps.call("decode", partial(size_of, self._data))
            async with steps.decoded(size, partial(decode_whole, self._data)) as image:
                found = await steps.ask(self._model, [ImageCut(image, box, ...) for box in boxes])
            return await steps.call("postprocess", partial(merge, found))

The predictor submits it like any other input, so it is answered over all protocols: to them it is one job, with one
deadline and one priority. Its parts are jobs of their own, so that the parts of all requests share batches. They are
abandoned with it.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from time import perf_counter
from typing import TypeVar

import msgspec
import numpy as np

from service.arrays import Tensors
from service.engine.assembly import Run
from service.engine.calls import AtEnd, Call, Calls, Stage, nothing
from service.engine.intake import Admission
from service.engine.job import AnswerT, Input, Job
from service.errors import Reason, RequestError
from service.models.inputs import RESULT, ImageInput
from service.models.model import AnyModel, ImageModel
from service.results import Result
from service.settings import Settings
from service.threads import Tasks
from service.vision.decoded import DecodedImage, decode_whole, size_of

PartT = TypeVar("PartT")
_encode = msgspec.json.Encoder().encode
_PLACE_S = 0.005  # between two looks for a place in a queue
_running = Tasks()


class Steps(ABC):
    """What a composite input may ask for."""

    @abstractmethod
    def check(self, model: AnyModel, rows: int) -> None:
        """Refuse parts that could not be answered in time, before any work is done for them.

        Raises:
            RequestError: `queue_full`; `bad_option`: they are more than the queue has places.
        """

    @abstractmethod
    async def call(self, stage: Stage, work: Callable[[], PartT], at_end: AtEnd = nothing) -> PartT:
        """Call a function on a worker; raises what it raises.

        Args:
            stage: of the request.
            work: the function.
            at_end: called when it has returned, which is later than this if it takes too long.
        """

    @abstractmethod
    async def ask(self, model: ImageModel, images: Sequence[ImageInput]) -> list[Result | BaseException]:
        """Ask a model about images, and wait until all are answered. An error is in the place of its answer.

        Where its queue is full, they wait for places.

        Raises:
            RequestError: `queue_full`; then none is answered.
        """

    @asynccontextmanager
    async def decoded(self, size: tuple[int, int], decode: Callable[[], DecodedImage]) -> AsyncIterator[DecodedImage]:
        """Decode an image in its full size, width and height, for the parts that are asked about in the block.

        Its pixels are freed when the block ends, even if jobs that were given up still refer to it.

        Raises:
            RequestError: `undecodable`; `queue_full`: other images fill the memory for pixels.
        """
        leave = self._hold(3 * size[0] * size[1])
        try:
            image = await self.call("decode", decode, leave)
            try:
                yield image
            finally:
                image.free()
        finally:
            leave()

    @abstractmethod
    def _hold(self, size: int) -> AtEnd:
        """Count the bytes of an image's pixels until what is returned was called twice: by the request and its call."""


class Queued(Steps):
    """The steps of a job: each is a job of its own, a part of this one."""

    def __init__(self, job: Job[AnswerT], calls: Calls) -> None:
        self._job = job
        self._calls = calls
        self._asked: list[Job[Result]] = []

    def give_up(self, job: Job[AnswerT]) -> None:  # noqa: ARG002 - there is only one
        """Abandon the parts that are under way, also where another process has them."""
        for part in self._asked:
            part.abandon()

    def check(self, model: AnyModel, rows: int) -> None:
        if rows > model.batcher.max_queue:
            raise RequestError(
                Reason.BAD_OPTION,
                f"The image takes {rows} places in the queue of `{model.card.name}`, which has "
                f"{model.batcher.max_queue} (ZOOSERVE_MAX_QUEUE). Ask for fewer parts, or enlarge the queue.",
            )
        model.batcher.check(self._job.deadline, rows)

    async def call(self, stage: Stage, work: Callable[[], PartT], at_end: AtEnd = nothing) -> PartT:
        job = self._part(Call(stage, work, at_end))
        self._calls.submit(job)
        await asyncio.wait([job.future])
        self._job.steps.append([job])
        return job.future.result()

    async def ask(self, model: ImageModel, images: Sequence[ImageInput]) -> list[Result | BaseException]:
        jobs = self._asked = list[Job[Result]]()
        self._job.holder = self
        try:
            for image in images:
                job = self._part(image)
                while model.batcher.full and not self._job.abandoned and perf_counter() < self._job.deadline:
                    await asyncio.sleep(_PLACE_S)  # the work for the parts before this one would be lost otherwise
                model.batcher.submit(job)
                jobs.append(job)
            if jobs:
                await asyncio.wait([job.future for job in jobs])
        except BaseException:
            for job in jobs:
                job.abandon()
            raise
        finally:
            self._job.holder = None
        if not jobs:
            return []
        self._job.steps.append(jobs)
        self._job.batch_size = max(job.batch_size for job in jobs)
        return [job.future.exception() or job.future.result() for job in jobs]

    def _hold(self, size: int) -> AtEnd:
        return self._calls.memory.hold(size).leave

    def _part(self, input_: Input[PartT]) -> Job[PartT]:
        return Job(input_, self._job.deadline, self._job.priority, self._job)


class Alone(Steps):
    """The same on the calling thread, without a queue. Nothing is waited for, so no event loop is needed."""

    def check(self, model: AnyModel, rows: int) -> None:
        pass

    async def call(
        self,
        stage: Stage,  # noqa: ARG002 - times are not kept
        work: Callable[[], PartT],
        at_end: AtEnd = nothing,
    ) -> PartT:
        try:
            return work()
        finally:
            at_end()

    async def ask(self, model: ImageModel, images: Sequence[ImageInput]) -> list[Result | BaseException]:
        return [image.alone(model.run) for image in images]

    def _hold(self, size: int) -> AtEnd:  # noqa: ARG002 - there are no others
        return nothing


class Composite(Input[AnswerT]):
    """An input whose answer is composed of those of several jobs."""

    __slots__ = ("_calls",)

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    @abstractmethod
    async def compose(self, steps: Steps) -> AnswerT:
        """Make the answer, by steps; raises `RequestError`. On the event loop, so work is done by `steps.call`."""

    def answer(self, outputs: Tensors, row: int) -> AnswerT:
        """Is never called: the job of a composite input is not part of a batch."""
        raise NotImplementedError

    def enter(self, queue: Admission, job: Job[AnswerT]) -> None:
        """Begin with the job."""
        queue.check(job.deadline)
        _running.begin(self._run(job))

    def alone(self, run: Run | None = None) -> AnswerT:  # noqa: ARG002 - each model that it asks has its own
        """Make the answer on the calling thread, without a queue; raises `RequestError`."""
        try:
            self.compose(Alone()).send(None)
        except StopIteration as done:
            answer: AnswerT = done.value
            return answer
        raise AssertionError("a step waited for something")

    async def _run(self, job: Job[AnswerT]) -> None:
        if job.after is not None:
            await asyncio.wait([job.after.future])
            job.after = None
        try:
            job.succeed(await self.compose(Queued(job, self._calls)))
        except Exception as error:
            if isinstance(error, RequestError):
                error.forget()
            job.fail(error)
        for step in job.steps:
            for part in step:
                part.whole = None  # a reference cycle would keep the image in memory until the garbage collector runs
        job.settle()


class CompositeImage(Composite[Result]):
    """An encoded image whose answer is composed of those of its parts.

    Args:
        data: the encoded image.
        settings: how images are resized, and how large they may be.
        calls: decode, and whatever else `compose` calls.
    """

    __slots__ = ("_data", "_settings")

    def __init__(self, data: bytes, settings: Settings, calls: Calls) -> None:
        super().__init__(calls)
        self._data = data
        self._settings = settings

    def outputs(self, names: Sequence[str] = ()) -> "CompositeOutputs":  # noqa: ARG002 - it has but one
        """Make the input whose answer is the output `result` for this image."""
        return CompositeOutputs(self, self._calls)

    async def _size(self, steps: Steps) -> tuple[int, int]:
        """Return width and height of the upright image."""
        return await steps.call("decode", partial(size_of, self._data, self._settings.max_pixels))

    @asynccontextmanager
    async def _decoded(self, steps: Steps, size: tuple[int, int]) -> AsyncIterator[DecodedImage]:
        """Decode the image, see `Steps.decoded`. The encoded bytes are freed."""
        async with steps.decoded(size, partial(decode_whole, self._data, self._settings.max_pixels)) as image:
            self._data = b""
            yield image


class CompositeOutputs(Composite[Tensors]):
    """The same as the output `result` of the Open Inference Protocol: BYTES, the JSON of the image's result."""

    __slots__ = ("_image",)

    def __init__(self, image: CompositeImage, calls: Calls) -> None:
        super().__init__(calls)
        self._image = image

    async def compose(self, steps: Steps) -> Tensors:
        """Answer the image, and encode."""
        return {RESULT: np.array([_encode(await self._image.compose(steps))], object)}
