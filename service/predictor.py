"""From a picture's bytes to its typed answer, whatever brought them.

HTTP, BentoML's endpoints, the command line, the self-test and the tests all call this.
"""

from collections.abc import Collection, Mapping, Sequence
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from service.engine.job import Job, Outputs, Priority
from service.errors import Reason, RequestError
from service.models.folder import AnyModel
from service.models.model import Model
from service.models.repository import Repository
from service.models.tensors import TensorJob
from service.options import parse_options
from service.results import ImageSize, Result
from service.settings import Settings
from service.tasks import TASKS
from service.vision.resize import prepare
from zoo.card import Task
from zoo.recipe import Placement


class Picture:
    """The two halves of a picture's way: `prepare` before the run, `finish` after it."""

    __slots__ = ("_data", "_exact", "_max_pixels", "_model", "_options", "_placement")

    def __init__(self, data: bytes, model: Model, options: Any, settings: Settings) -> None:
        self._data: bytes | None = data
        self._model = model
        self._options = options
        self._exact = settings.pixels == "exact"
        self._max_pixels = int(settings.max_megapixels * 1e6)
        self._placement: Placement | None = None

    def prepare(self, out: npt.NDArray[np.uint8] | None = None) -> npt.NDArray[np.uint8]:
        """Decode and resize, to uint8 [H, W, 3], into `out` where it is given.

        Raises:
            RequestError: the bytes are no picture, a broken one, or one that is too large.
        """
        assert self._data is not None  # noqa: S101 - prepared once
        recipe = self._model.card.recipe
        array, self._placement = prepare(self._data, recipe, exact=self._exact, max_pixels=self._max_pixels, out=out)
        self._data = None  # the body is not kept while the picture waits for its run
        return array

    def finish(self, outputs: Outputs, index: int) -> Result:
        """Turn the picture's share of a run's outputs into its answer."""
        card, placement = self._model.card, self._placement
        assert placement is not None  # noqa: S101 - `prepare` came before
        predictions = TASKS[card.task].answer(outputs, index, card, placement, self._options)
        size = ImageSize(placement.width, placement.height)
        return Result(card.name, card.version, card.task, size, predictions)


class Pixels(Picture):
    """A picture that is the graph's input already, uint8 [H, W, 3]; it is taken for the whole picture."""

    __slots__ = ("_pixels",)

    def __init__(self, pixels: npt.NDArray[np.uint8], model: Model, options: Any, settings: Settings) -> None:
        super().__init__(b"", model, options, settings)
        self._pixels = pixels

    def prepare(self, out: npt.NDArray[np.uint8] | None = None) -> npt.NDArray[np.uint8]:
        """Copy the pixels into `out` where it is given."""
        height, width, _ = self._pixels.shape
        self._placement = Placement(width, height, 1.0, 1.0, 0.0, 0.0)
        if out is None:
            return self._pixels
        out[:] = self._pixels
        return out


class Row(NamedTuple):
    """One picture's share of a run: those of the graph's outputs that were asked for, and its answer where it was."""

    outputs: Outputs
    result: Result | None


class Predictor:
    """Answers pictures with the models of a repository."""

    def __init__(self, repository: Repository, settings: Settings) -> None:
        self._repository = repository
        self._settings = settings

    def resolve(self, task: Task, name: str | None = None, version: str | None = None) -> Model:
        """Find the model that answers; see `Repository.get`."""
        return self._repository.get(task, name, version)

    def options(self, model: Model, words: Mapping[str, Any]) -> Any:
        """Convert option words to the typed options of a model's task.

        Raises:
            RequestError: `bad_option`; also where this model cannot answer with them, naming those that can.
        """
        task = model.card.task
        options = options_of(task, words)
        cannot = TASKS[task].cannot
        if reason := cannot(options, model.card):
            loaded = self._repository.ready_for(task)
            able = ", ".join(f"`{other.card.name}`" for other in loaded if not cannot(options, other.card)) or "none"
            raise RequestError(Reason.BAD_OPTION, f"{reason} Loaded models that can: {able}.")
        return options

    def submit(
        self, data: bytes, model: Model, options: Any, deadline: float, priority: Priority = Priority.NORMAL
    ) -> Job[Result]:
        """Queue one picture and return at once; the job's future resolves to its `Result`. Only on the event loop.

        Raises:
            RequestError: `queue_full`. Everything else is the future's error.
        """
        picture = Picture(data, model, options, self._settings)
        job = Job(picture.prepare, picture.finish, deadline, priority)
        model.batcher.submit(job)
        return job

    def submit_rows(
        self,
        pictures: Sequence[bytes] | npt.NDArray[np.uint8],
        model: Model,
        options: Any,
        names: Collection[str],
        deadline: float,
        priority: Priority = Priority.NORMAL,
        *,
        result: bool,
    ) -> list[Job[Row]]:
        """Queue pictures, encoded or as uint8 [N, H, W, 3] of the graph's size, and answer with the graph's outputs.

        They go through the queue of all pictures and share its runs. Only on the event loop.

        Args:
            pictures: see above.
            model: that answers.
            options: typed, of the model's task, for its result.
            names: of the outputs to answer with; each lacks the batch dimension.
            deadline: as of `submit`.
            priority: as of `submit`.
            result: whether to answer with the task's result, too.

        Raises:
            RequestError: `queue_full`: none of them is answered. Everything else is the futures' error.
        """
        kind: type[Any] = Pixels if isinstance(pictures, np.ndarray) else Picture
        jobs = [
            self._row(kind(one, model, options, self._settings), names, deadline, priority, result) for one in pictures
        ]
        try:
            for job in jobs:
                model.batcher.submit(job)
        except RequestError:
            for job in jobs:
                job.abandoned = True
            raise
        return jobs

    @staticmethod
    def _row(one: Picture, names: Collection[str], deadline: float, priority: Priority, result: bool) -> Job[Row]:
        def finish(outputs: Outputs, index: int) -> Row:
            return Row({name: outputs[name][index] for name in names}, one.finish(outputs, index) if result else None)

        return Job(one.prepare, finish, deadline, priority)

    def submit_tensors(
        self,
        inputs: Mapping[str, npt.NDArray[Any]],
        model: AnyModel,
        deadline: float,
        priority: Priority = Priority.NORMAL,
    ) -> Sequence[Job[Any]]:
        """Queue the graph's own inputs, each with the batch as its first dimension. Only on the event loop.

        Returns:
            Of a graph that takes tensors, one job, whose answer is the outputs for all rows. Of a model for pictures,
            one per row of `images`, each with a `Row`: pictures from elsewhere join them in their runs.

        Raises:
            RequestError: `queue_full`. Everything else is the futures' error.
        """
        if isinstance(model, Model):
            options, names = options_of(model.card.task, {}), [output.name for output in model.card.outputs]
            return self.submit_rows(inputs["images"], model, options, names, deadline, priority, result=False)
        job = TensorJob(inputs, deadline, priority)
        model.batcher.submit(job)
        return [job]

    def predict(self, data: bytes, model: Model, words: Mapping[str, Any]) -> Result:
        """Answer one picture on the calling thread, without the queue.

        Raises:
            RequestError: a bad option or a bad picture.
        """
        picture = self.picture(data, model, words)
        return picture.finish(model.session.run(picture.prepare()[None]), 0)

    def picture(self, data: bytes, model: Model, words: Mapping[str, Any]) -> Picture:
        """Hand out the two halves of `predict`, for a caller that runs the graph between them.

        Raises:
            RequestError: a bad option.
        """
        return Picture(data, model, self.options(model, words), self._settings)


def options_of(task: Task, words: Mapping[str, Any]) -> Any:
    """Convert option words to the task's typed options; raises `RequestError` (`bad_option`)."""
    return parse_options(TASKS[task].options, words)


def deadline_after(milliseconds: float) -> float:
    """The moment, as `time.perf_counter()`, that lies so many milliseconds ahead."""
    return perf_counter() + milliseconds / 1000
