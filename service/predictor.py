"""From a picture's bytes to its typed answer, whatever brought them.

HTTP, BentoML's endpoints, the command line, the self-test and the tests all call this.
"""

from collections.abc import Mapping
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from service.engine.job import Job, Outputs, Priority
from service.engine.model import LoadedModel
from service.engine.repository import Repository
from service.errors import Reason, RequestError
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

    def __init__(self, data: bytes, model: LoadedModel, options: Any, settings: Settings) -> None:
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


class Predictor:
    """Answers pictures with the models of a repository."""

    def __init__(self, repository: Repository, settings: Settings) -> None:
        self._repository = repository
        self._settings = settings

    def resolve(self, task: Task, name: str | None = None, version: str | None = None) -> LoadedModel:
        """Find the model that answers; see `Repository.get`."""
        return self._repository.get(task, name, version)

    def options(self, model: LoadedModel, words: Mapping[str, Any]) -> Any:
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
        self, data: bytes, model: LoadedModel, options: Any, deadline: float, priority: Priority = Priority.NORMAL
    ) -> Job[Result]:
        """Queue one picture and return at once; the job's future resolves to its `Result`. Only on the event loop.

        Raises:
            RequestError: `queue_full`. Everything else is the future's error.
        """
        picture = Picture(data, model, options, self._settings)
        job = Job(picture.prepare, picture.finish, deadline, priority)
        model.batcher.submit(job)
        return job

    def predict(self, data: bytes, model: LoadedModel, words: Mapping[str, Any]) -> Result:
        """Answer one picture on the calling thread, without the queue.

        Raises:
            RequestError: a bad option or a bad picture.
        """
        picture = self.picture(data, model, words)
        return picture.finish(model.session.run(picture.prepare()[None]), 0)

    def picture(self, data: bytes, model: LoadedModel, words: Mapping[str, Any]) -> Picture:
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
