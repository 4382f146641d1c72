"""Computes typed answers to images or tensors, for all protocols.

HTTP, gRPC, BentoML's endpoints, the command line and the tests call this.
"""

from collections.abc import Mapping
from time import perf_counter

from msgspec import Struct

from service.engine.calls import Calls
from service.engine.job import AnswerT, Input, Job, Priority
from service.errors import Reason, RequestError
from service.models.inputs import EncodedImage
from service.models.model import AnyModel, ImageModel
from service.models.registry import Registry
from service.models.tiles import TiledImage
from service.results import Result
from service.settings import Settings
from service.tasks import TASKS, Operation, options_of
from service.tasks.grid import tiling_of


class Predictor:
    """Answers with the models of a registry."""

    def __init__(self, registry: Registry, settings: Settings, calls: Calls) -> None:
        self._registry = registry
        self._settings = settings
        self._calls = calls

    def options(self, model: ImageModel, params: Mapping[str, object], task: Operation | None = None) -> Struct:
        """Convert parameters, texts or JSON values, to the typed options of a task; by default the card's.

        Raises:
            RequestError: `bad_option`: one is invalid, or this model does not support it. The message then names the
                loaded models that do.
        """
        task = task or model.card.task
        options = options_of(task, params)
        unsupported = TASKS[task].unsupported_reason
        if reason := unsupported(options, model.card):
            loaded = self._registry.ready_for(task)
            able = [f"`{other.card.name}`" for other in loaded if not unsupported(options, other.card)]
            raise RequestError(Reason.BAD_OPTION, f"{reason} Loaded models that do: {', '.join(able) or 'none'}.")
        return options

    def image(self, data: bytes, model: ImageModel, options: Struct) -> EncodedImage:
        """Make an input from an encoded image and the options of a task. Nothing is decoded yet."""
        return EncodedImage(data, model.card, options, self._settings)

    def input(self, data: bytes, model: ImageModel, options: Struct) -> EncodedImage | TiledImage:
        """Make the input that the options ask for: an encoded image, whole or in tiles."""
        if tiling_of(options) is None:
            return self.image(data, model, options)
        return TiledImage(data, model, options, self._settings, self._calls)

    def submit(
        self,
        input_: Input[AnswerT],
        model: AnyModel,
        deadline: float,
        priority: Priority = Priority.NORMAL,
        after: Job[AnswerT] | None = None,
    ) -> Job[AnswerT]:
        """Queue one input, and return at once. Must be called on the event loop.

        Args:
            input_: an image, tensors, or what is composed of several answers, made for this model.
            model: that answers.
            deadline: when the answer becomes useless, a time of `time.perf_counter()` in seconds.
            priority: among the waiting jobs.
            after: the job of the request's image before this one. An input that takes several jobs begins when that is
                done: else the images of one request would refuse each other for lack of room, on an idle server too.

        Returns:
            The job, whose future resolves to the input's answer.

        Raises:
            RequestError: `queue_full`, or `deadline` if it has passed. All other errors are set on the future.
        """
        job = Job(input_, deadline, priority)
        job.after = after
        input_.enter(model.batcher, job)
        return job

    def predict(
        self, data: bytes, model: ImageModel, params: Mapping[str, object], task: Operation | None = None
    ) -> Result:
        """Answer one image on the calling thread, without the queue; by default for the task of the model's card.

        Raises:
            RequestError: an option is invalid, or the data are not an image, damaged or too large.
        """
        return self.input(data, model, self.options(model, params, task)).alone(model.run)


def deadline_after(milliseconds: float) -> float:
    """Return the time of `time.perf_counter()`, in seconds, that many milliseconds from now."""
    return perf_counter() + milliseconds / 1000
