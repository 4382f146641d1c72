"""How the engine puts batches together of what fronts have prepared, and gives them the outputs.

An image lies in a row of the model's memory. Rows of one front follow each other, so neighbouring rows are often ready
together; a batch takes what is ready of all fronts, first by priority, then in the order in which it came.
"""

from typing import TYPE_CHECKING, Any, cast

from service.arrays import Tensors
from service.engine.assembly import Concatenation, Rows, stretches
from service.engine.cuda import pin
from service.engine.job import AnyJob, Input, Job, Jobs, Priority, too_slow
from service.fronts.memory import Layout, ModelMemory, layout_of
from service.fronts.messages import REQUESTS
from service.models.model import Parts

if TYPE_CHECKING:
    from service.fronts.front import Front


class Row(Input[None]):
    """An image that a front has prepared."""

    __slots__ = ()

    def answer(self, outputs: Tensors, row: int) -> None:
        """Nothing is cut out here: `SharedRows` gives the outputs to the front."""


ROW = Row()


class RemoteJob(Job[Any]):
    """A job of a front. Its future is of no use: the front has that of the request.

    Attributes:
        front: that waits for it.
        model: number of the model.
        number: of the row or the request.
    """

    __slots__ = ("front", "model", "number")

    def __init__(
        self, input_: Input[Any], deadline: float, priority: Priority, front: "Front", model: int, number: int
    ) -> None:
        super().__init__(input_, deadline, priority)
        self.front, self.model, self.number = front, model, number
        self.started = self.prepared = self.submitted

    @property
    def error(self) -> BaseException | None:
        """Why it failed."""
        return self._error

    def time_out(self) -> None:
        """Let the front answer its request. The job is settled when its run ends."""
        if not self.finished:  # else the front has the outputs, and perhaps the next image in that row
            self.front.late(self.model, self, too_slow())

    def settle(self) -> None:
        """Tell the front what it does not know yet."""
        self.front.settled(self.model, self)


class SharedRows(Rows):
    """Images in a model's memory.

    Args:
        number: of the model.
        parts: of the loaded graph.
        fronts: how many there are.
        rows: of each front.
    """

    quick = True

    def __init__(self, number: int, parts: Parts, fronts: int, rows: int) -> None:
        assert parts.image_shape is not None  # noqa: S101 - it takes images
        self.number = number
        outputs = layout_of(parts.run(parts.sample(1)))
        spare = parts.profile.max_batch
        self.memory = ModelMemory(Layout(fronts, rows, spare, parts.image_shape, outputs, parts.jpegs))
        # Written first by this process, the pages lie in the memory of the NUMA node that runs the batches.
        self.memory.images.fill(0)
        if parts.sizes:
            pin(self.memory.images)
        super().__init__(self.memory.images, self.memory.lengths, parts.sizes)

    def may_ask(self, place: int, number: int) -> bool:
        """Whether a row is one of the front at a place."""
        rows = self.memory.layout.rows
        return place >= 0 and place * rows <= number < (place + 1) * rows

    def add(self, job: AnyJob) -> None:
        """Add an image."""
        assert isinstance(job, RemoteJob)  # noqa: S101 - there are no others in the engine's process
        job.row = job.number
        super().add(job)

    def answer(self, jobs: Jobs, outputs: Tensors, row: int = 0) -> None:
        """Copy the outputs to the memory, and tell the fronts."""
        try:
            self._give(jobs, outputs, row)
        except BaseException as error:  # outputs of another number of rows, say
            for job in jobs:
                job.fail(error)

    def _worth_doing(self, job: AnyJob) -> bool:
        if self.memory.given_up[job.row]:
            job.abandoned = True
        return super()._worth_doing(job)

    def _give(self, jobs: Jobs, outputs: Tensors, row: int) -> None:
        rows = {name: value[row : row + len(jobs)] for name, value in outputs.items()}
        rooms = self.memory.outputs
        fits = bool(rooms) and self.memory.fits(rows)
        if fits:
            for first, end, before in stretches(jobs):
                for name, room in rooms.items():
                    room[first:end] = rows[name][before : before + end - first]
        fronts: dict[Front, list[RemoteJob]] = {}
        for number, job in enumerate(jobs):
            assert isinstance(job, RemoteJob)  # noqa: S101 - as `add` says
            job.succeed(None)
            if fits:
                fronts.setdefault(job.front, []).append(job)
            else:
                one = {name: value[number : number + 1] for name, value in rows.items()}
                job.front.answer(self.number, job, one)
        for front, some in fronts.items():
            front.done(self.number, some)


class SharedTensors(Concatenation):
    """Requests of tensors; their answers are sent to the fronts."""

    quick = True

    def __init__(self, number: int, fronts: int) -> None:
        super().__init__()
        self.number = number
        self.memory = ModelMemory(Layout(fronts))

    def may_ask(self, place: int, number: int) -> bool:
        """Whether the front at a place may give a request this number."""
        return place >= 0 and number >= REQUESTS

    def answer(self, jobs: Jobs, outputs: Tensors, row: int = 0) -> None:
        """Cut out each request's rows, and send them."""
        for job in jobs:
            assert isinstance(job, RemoteJob)  # noqa: S101 - there are no others in the engine's process
            try:
                found = cast(Tensors, job.input.answer(outputs, row))
                job.front.answer(self.number, job, found)
                job.succeed(None)
            except BaseException as error:
                job.fail(error)
            row += job.input.rows


Shared = SharedRows | SharedTensors
