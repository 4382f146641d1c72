"""The operations of the Open Inference Protocol, with the same predictor and queues as `/v1`.

REST (`http.v2`) and gRPC call it; it does not depend on the transport.
"""

import importlib.metadata
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from time import perf_counter

import numpy as np
from msgspec import Struct

from service.arrays import Tensors
from service.engine.job import Input, Job, Priority
from service.errors import Reason, RequestError
from service.models.entry import State
from service.models.inputs import RESULT, EncodedImage, ImageInput, PixelArray, TensorRows, output_names
from service.models.model import AnyModel, takes_images
from service.models.tiles import TiledImage
from service.oip.describe import IMAGE, config_of, index_entry, metadata_of, pipeline_config, pipeline_metadata
from service.oip.messages import (
    Answer,
    AnyCard,
    Call,
    IndexEntry,
    ModelConfig,
    ModelMetadata,
    ServerMetadata,
    Statistics,
)
from service.oip.statistics import statistics_of
from service.oip.takes import Takes, takes_of
from service.oip.tensors import datatype_of
from service.request import RequestContext
from service.runtime import Runtime
from service.tasks.grid import tiling_of
from service.threads import LOADING
from service.waiting import outcome
from zoo.pipeline_card import PipelineCard

EXTENSIONS = (
    "binary_tensor_data",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
)
_NOT_OPTIONS = frozenset({"timeout", "priority", "binary_data_output", "sequence_id", "sequence_start", "sequence_end"})
_LONGEST = 1e15  # microseconds


class Submitted:
    """A call whose jobs were submitted. Await them with `service.waiting.wait`, then call `answer`.

    Attributes:
        jobs: one per image, or one for all rows of tensors.
        deadline: a time of `time.perf_counter()` in seconds.
    """

    def __init__(self, call: Call, card: AnyCard, jobs: Sequence[Job[Tensors]], deadline: float) -> None:
        self.jobs = jobs
        self.deadline = deadline
        self._call, self._card = call, card

    def answer(self) -> Answer:
        """Join the answers of all jobs. Call it when all are done.

        Raises:
            RequestError: the error of the first job that failed.
        """
        rows: list[Tensors] = []
        for number, job in enumerate(self.jobs):
            found = outcome(job)
            if isinstance(found, RequestError):
                if len(self.jobs) == 1:
                    raise found
                raise RequestError(found.reason, f"Image {number}: {found.detail}", retry_after=found.retry_after)
            rows.append(found)
        joined = rows[0] if len(rows) == 1 else {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
        card, call = self._card, self._call
        outputs = {name: joined[name] for name in call.outputs or joined}
        return Answer(card.name, card.version, outputs, call.id)


class Dataplane:
    """The operations of one server process."""

    def __init__(self, runtime: Runtime) -> None:
        self._repository = runtime.repository
        self._predictor = runtime.predictor
        self._pipelines = runtime.pipelines
        self._on_demand = runtime.on_demand
        self._metrics = runtime.metrics
        self._settings = runtime.settings
        self._takes = dict[str, Takes]()  # by the name of the model

    def server(self) -> ServerMetadata:
        """Describe the server."""
        return ServerMetadata("zooserve", importlib.metadata.version("zooserve"), EXTENSIONS)

    def model(self, name: str, version: str = "") -> AnyModel:
        """Find a model that is loaded; raises `RequestError` (`unknown_model`, `not_ready`)."""
        return self._repository.find(name, version or None)

    def card(self, name: str, version: str = "") -> AnyCard:
        """Find the card of a model, or of a pipeline, that answers requests.

        Raises:
            RequestError: `unknown_model`, `not_ready`.
        """
        pipeline = self._pipeline(name, version)
        if pipeline is None:
            return self._repository.card(name, version or None)
        if problem := self._pipelines.problem(pipeline):
            raise RequestError(Reason.NOT_READY, problem)
        return pipeline

    def metadata(self, name: str, version: str = "") -> ModelMetadata:
        """Describe a model that is ready; raises `RequestError` as `card` does."""
        card = self.card(name, version)
        return pipeline_metadata(card) if isinstance(card, PipelineCard) else metadata_of(card)

    def config(self, name: str, version: str = "") -> ModelConfig:
        """Return a model's configuration in Triton's format; raises `RequestError` as `card` does."""
        card, most = self.card(name, version), self._settings.max_images
        return pipeline_config(card, most) if isinstance(card, PipelineCard) else config_of(card, most)

    def statistics(self, name: str = "", version: str = "") -> Statistics:
        """Return the statistics of one model, or of all that are loaded; raises `RequestError` as `model` does."""
        entries = self._repository.entries.values()
        cards: list[AnyCard]
        cards = [self.card(name, version)] if name else [model.card for entry in entries if (model := entry.model)]
        return statistics_of(cards, self._metrics.collect())

    def index(self, *, ready: bool = False) -> list[IndexEntry]:
        """List the models of the repository, or only those that are ready."""
        entries = self._repository.entries.values()
        index = [index_entry(entry) for entry in entries if not ready or entry.state is State.READY]
        for name, card in self._pipelines.all().items():
            problem = self._pipelines.problem(card)
            if not (ready and problem):
                index.append(IndexEntry(name, "1", "UNAVAILABLE" if problem else "READY", problem))
        return index

    async def load(self, name: str, parameters: Collection[str] = ()) -> None:
        """Load a model in the version that the store holds now; raises `RequestError`."""
        if parameters:
            raise RequestError(
                Reason.BAD_REQUEST,
                f"`{min(parameters)[:80]}`: a model is loaded from its folder; a request cannot contain files or a "
                "configuration.",
            )
        await self._on_demand.load(name, perf_counter() + self._settings.load_s)

    async def unload(self, name: str) -> None:
        """Unload a model; raises `RequestError`."""
        await LOADING.run(self._repository.unload, name)

    async def admit(self, context: RequestContext, name: str, version: str = "") -> None:
        """Find the model or the pipeline of a request, wait until it is loaded, and refuse what would be too late.

        Raises:
            RequestError: `unknown_model`, `not_ready`, `queue_full`.
        """
        pipeline = self._pipeline(name, version)
        if pipeline is None:
            context.admit(await context.obtain(partial(self.model, name, version)))
        else:
            (await context.obtain_pipeline(pipeline, {})).check(context.deadline)

    def takes(self, name: str, version: str = "") -> Takes:
        """Return the limits on a model's requests; raises `RequestError` as `model` does."""
        return self._takes_of(self._pipeline(name, version) or self.model(name, version).card)

    def _pipeline(self, name: str, version: str) -> PipelineCard | None:
        """Return the card of a pipeline; None if there is none of this name.

        Raises:
            RequestError: `unknown_model`: it has another version.
        """
        card = self._pipelines.get(name)
        if card is not None and version not in ("", card.version):
            raise RequestError(
                Reason.UNKNOWN_MODEL, f"The pipeline `{name}` has the version {card.version}, not {version[:80]}."
            )
        return card

    def _takes_of(self, card: AnyCard) -> Takes:
        takes = self._takes.get(card.name)
        if takes is None or takes.card is not card:
            takes = self._takes[card.name] = takes_of(card, self._settings)
        return takes

    def submit(self, call: Call) -> Submitted:
        """Check a call and queue its jobs. Must be called on the event loop.

        Raises:
            RequestError: the model, an input or an output does not exist, an option is invalid, the request or its
                answer is too large, or the queue is full.
        """
        card = self._pipeline(call.model, call.version) or self.model(call.model, call.version).card
        deadline = _deadline(call)
        priority = _priority(call.parameters["priority"]) if "priority" in call.parameters else call.priority
        if call.parameters.get("sequence_id"):
            raise RequestError(
                Reason.BAD_OPTION, "`sequence_id`: sequences are not served; send a request's whole input."
            )
        params = {name: value for name, value in call.parameters.items() if name not in _NOT_OPTIONS}
        takes = self._takes_of(card)
        rows = len(next(iter(call.inputs.values()), ()))
        if call.card is not card:  # the inputs were not checked, or the model was loaded again since
            rows = takes.check_inputs({name: (datatype_of(array), array.shape) for name, array in call.inputs.items()})
        takes.check_outputs(call.outputs)
        model, inputs = self._inputs(call, params, takes, rows)
        jobs: list[Job[Tensors]] = []
        try:
            for input_ in inputs:
                before = jobs[-1] if jobs else None
                jobs.append(self._predictor.submit(input_, model, deadline, priority, before))
        except RequestError:  # all images are answered, or none
            for job in jobs:
                job.abandon()
            raise
        return Submitted(call, card, jobs, deadline)

    def _inputs(
        self, call: Call, params: Mapping[str, object], takes: Takes, rows: int
    ) -> tuple[AnyModel, Sequence[Input[Tensors]]]:
        """Find the model whose queue takes a call's inputs, and make them."""
        pipeline = self._pipeline(call.model, call.version)
        if pipeline is not None:
            models = [find() for find in self._pipelines.finds(pipeline)]
            bound = self._pipelines.bind(pipeline, models, params)
            data = call.inputs[IMAGE].ravel().tolist()
            return bound.detector, [self._pipelines.image(each, bound).outputs() for each in data]
        model = self.model(call.model, call.version)
        options = None
        if takes_images(model):
            options = self._predictor.options(model, params)
        elif params:
            raise RequestError(Reason.BAD_OPTION, f"There is no parameter `{min(params)[:80]}` for `{call.model}`.")
        if model.card.recipe is not None:
            return model, self._images(call, model, options, takes, rows)
        takes.check_answer(rows, call.outputs)
        return model, [TensorRows({tensor.name: call.inputs[tensor.name] for tensor in model.card.inputs}, rows)]

    def _images(
        self, call: Call, model: AnyModel, options: Struct | None, takes: Takes, rows: int
    ) -> Sequence[Input[Tensors]]:
        """Make an input of each image of a call, encoded or pixels. Other requests' inputs can share its batch."""
        card = model.card
        ((name, array),) = call.inputs.items()
        wanted = call.outputs or output_names(card, encoded=name == IMAGE)
        takes.check_answer(rows, wanted)
        if options is not None and tiling_of(options) is not None and (name != IMAGE or set(wanted) != {RESULT}):
            raise RequestError(
                Reason.BAD_OPTION,
                f"`tiles`: expected encoded images (the input `{IMAGE}`) and the output `{RESULT}` alone, which is "
                "merged of all tiles.",
            )
        images: Sequence[ImageInput | TiledImage]
        if name == IMAGE and takes_images(model) and options is not None:
            images = [self._predictor.input(data, model, options) for data in array.ravel().tolist()]
        elif name == IMAGE:
            images = [EncodedImage(data, card, options, self._settings) for data in array.ravel().tolist()]
        else:
            images = [PixelArray(pixels, card, options) for pixels in array]
        return [image.outputs(wanted) for image in images]


def _deadline(call: Call) -> float:
    """Return a call's deadline, or that of its parameter `timeout`, whichever is earlier.

    Raises:
        RequestError: `bad_option`: `timeout` is not a number of microseconds.
    """
    given = call.parameters.get("timeout", 0)
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given <= _LONGEST:
        raise RequestError(Reason.BAD_OPTION, f"`timeout={str(given)[:80]}`: expected a number of microseconds.")
    return min(call.deadline, call.started + given / 1e6) if given else call.deadline


def _priority(given: object) -> Priority:
    """Read a priority: one of our names, or Triton's number (0 normal, 1 high, 2 normal, above low)."""
    if isinstance(given, str) and given.upper() in Priority.__members__:
        return Priority[given.upper()]
    if isinstance(given, bool) or not isinstance(given, int) or given < 0:
        raise RequestError(
            Reason.BAD_OPTION,
            f"`priority={str(given)[:80]}`: expected a whole number (1 goes first), or high, normal, low.",
        )
    return (Priority.NORMAL, Priority.HIGH, Priority.NORMAL)[given] if given <= 2 else Priority.LOW
