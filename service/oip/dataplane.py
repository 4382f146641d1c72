"""What the Open Inference Protocol asks for, from the same predictor and queues as everything else.

REST and gRPC call it; it knows neither.
"""

import importlib.metadata
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from service.engine.job import Job, Priority
from service.errors import Reason, RequestError
from service.models.entry import State
from service.models.folder import AnyModel
from service.models.model import Model
from service.oip.describe import IMAGE, RESULT, config_of, index_entry, metadata_of
from service.oip.messages import Answer, Call, IndexEntry, ModelConfig, ModelMetadata, ServerMetadata, Statistics
from service.oip.statistics import statistics_of
from service.oip.takes import Takes
from service.oip.tensors import datatype_of
from service.predictor import Row
from service.runtime import Runtime
from service.threads import LOADING
from service.waiting import outcome
from zoo.card import ServedCard

EXTENSIONS = (
    "binary_tensor_data",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
)
_NOT_OPTIONS = frozenset({"timeout", "priority", "binary_data_output", "sequence_id", "sequence_start", "sequence_end"})
Arrays = Mapping[str, npt.NDArray[Any]]
_LONGEST = 1e15  # microseconds
_encode = msgspec.json.Encoder().encode


class Submitted:
    """A call whose jobs are under way: `service.waiting.wait` for them, then take the answer.

    Attributes:
        jobs: one per picture, or one for all rows.
        deadline: as `time.perf_counter()`.
    """

    def __init__(self, call: Call, model: AnyModel, jobs: Sequence[Job[Any]], deadline: float) -> None:
        self.jobs = jobs
        self.deadline = deadline
        self.model = model
        self._call = call

    def answer(self) -> Answer:
        """Put the answer together once all jobs are settled.

        Raises:
            RequestError: what the first job that failed ended with.
        """
        found = []
        for number, job in enumerate(self.jobs):
            one = outcome(job)
            if isinstance(one, RequestError):
                raise one if len(self.jobs) == 1 else _of_picture(number, one)
            found.append(one)
        card = self.model.card
        joined = _stack(found) if isinstance(card, ServedCard) else _encoded(found[0])
        wanted = self._call.outputs or tuple(joined)
        return Answer(card.name, card.version, {name: joined[name] for name in wanted}, self._call.id)


class Dataplane:
    """Over one server process."""

    def __init__(self, runtime: Runtime) -> None:
        self._repository = runtime.repository
        self._predictor = runtime.predictor
        self._metrics = runtime.metrics
        self._settings = runtime.settings
        self._takes = dict[str, Takes]()  # by the name of the model

    def server(self) -> ServerMetadata:
        """Describe the server."""
        return ServerMetadata("zooserve", importlib.metadata.version("zooserve"), EXTENSIONS)

    def model(self, name: str, version: str = "") -> AnyModel:
        """Find a model that is ready; raises `RequestError` (`unknown_model`, `not_ready`)."""
        return self._repository.find(name, version or None)

    def metadata(self, name: str, version: str = "") -> ModelMetadata:
        """Describe a model that is ready."""
        return metadata_of(self.model(name, version).card)

    def config(self, name: str, version: str = "") -> ModelConfig:
        """Describe a model in Triton's words."""
        return config_of(self.model(name, version).card, self._settings.max_images)

    def statistics(self, name: str = "", version: str = "") -> Statistics:
        """Count what was asked of one model, or of all that are loaded."""
        entries = self._repository.entries.values()
        models = [self.model(name, version)] if name else [model for entry in entries if (model := entry.model)]
        return statistics_of([model.card for model in models], self._metrics.collect())

    def index(self, *, ready: bool = False) -> list[IndexEntry]:
        """List the models of the repository, or those that are ready."""
        entries = self._repository.entries.values()
        return [index_entry(entry) for entry in entries if not ready or entry.state is State.READY]

    async def load(self, name: str, parameters: Collection[str] = ()) -> None:
        """Load a model, or the version of it that the store holds now; raises `RequestError`."""
        if parameters:
            raise RequestError(
                Reason.BAD_REQUEST,
                f"`{min(parameters)[:80]}`: a model is loaded as its folder has it, without files or a configuration "
                "of the request's.",
            )
        await LOADING.run(self._repository.reload, name)

    async def unload(self, name: str) -> None:
        """Unload a model; raises `RequestError`."""
        await LOADING.run(self._repository.unload, name)

    def takes(self, name: str, version: str = "") -> Takes:
        """What a model's requests may hold; raises `RequestError` as `model` does."""
        return self._takes_of(self.model(name, version))

    def _takes_of(self, model: AnyModel) -> Takes:
        takes = self._takes.get(model.card.name)
        if takes is None or takes.card is not model.card:
            takes = self._takes[model.card.name] = Takes(model.card, self._settings)
        return takes

    def deadline(self, started: float, call_timeout_ms: float | None, parameters: Mapping[str, Any]) -> float:
        """When a call is no longer worth any work: the transport's limit, its own, or the server's, whichever is first.

        Args:
            started: from which on they count, as `time.perf_counter()`; so is what is returned.
            call_timeout_ms: the transport's limit, if it has one.
            parameters: of the request.

        Raises:
            RequestError: `bad_option`: `timeout` is no number of microseconds.
        """
        limits: list[float] = [self._settings.timeout_ms]
        given = parameters.get("timeout", 0)
        if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given <= _LONGEST:
            raise RequestError(Reason.BAD_OPTION, f"`timeout={str(given)[:80]}`: expected a number of microseconds.")
        limits += [given / 1000] if given else []
        limits += [call_timeout_ms] if call_timeout_ms is not None else []
        return started + min(limits) / 1000

    def submit(self, call: Call) -> Submitted:
        """Check a call and queue it. Only on the event loop.

        Raises:
            RequestError: no such model, inputs or outputs; a bad option; or the queue is full.
        """
        model = self.model(call.model, call.version)
        deadline = self.deadline(call.started, call.timeout_ms, call.parameters)
        priority = _priority(call.parameters.get("priority", 0))
        if call.parameters.get("sequence_id"):
            raise RequestError(
                Reason.BAD_OPTION, "`sequence_id`: sequences are not served; send a request's whole input."
            )
        words = {name: value for name, value in call.parameters.items() if name not in _NOT_OPTIONS}
        takes = self._takes_of(model)
        rows = len(next(iter(call.inputs.values()), ()))
        if call.card is not model.card:  # loaded anew since its inputs were checked, or they never were
            rows = takes.check_inputs({name: (datatype_of(array), array.shape) for name, array in call.inputs.items()})
        takes.check_outputs(call.outputs)
        if not isinstance(model, Model):
            if words:
                raise RequestError(Reason.BAD_OPTION, f"There is no parameter `{min(words)[:80]}` for `{call.model}`.")
            takes.check_answer(rows, call.outputs)
            inputs = {tensor.name: call.inputs[tensor.name] for tensor in model.card.inputs}
            return Submitted(call, model, self._predictor.submit_tensors(inputs, model, deadline, priority), deadline)
        options = self._predictor.options(model, words)
        ((name, array),) = call.inputs.items()
        wanted = call.outputs or ((RESULT,) if name == IMAGE else tuple(output.name for output in model.card.outputs))
        takes.check_answer(rows, wanted)
        jobs = self._predictor.submit_rows(
            array.ravel().tolist() if name == IMAGE else array,
            model,
            options,
            [output for output in wanted if output != RESULT],
            deadline,
            priority,
            result=RESULT in wanted,
        )
        return Submitted(call, model, jobs, deadline)


def _stack(rows: Sequence[Row]) -> dict[str, npt.NDArray[Any]]:
    joined: dict[str, npt.NDArray[Any]] = {
        name: np.stack([row.outputs[name] for row in rows]) for name in rows[0].outputs
    }
    if rows[0].result is not None:
        joined[RESULT] = np.empty(len(rows), object)
        joined[RESULT][:] = [_encode(row.result) for row in rows]
    return joined


def _encoded(outputs: Arrays) -> dict[str, npt.NDArray[Any]]:
    """The outputs with their texts as bytes."""
    return {name: _as_bytes(value) if value.dtype.kind == "O" else value for name, value in outputs.items()}


def _as_bytes(texts: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array = np.empty(texts.size, object)
    array[:] = [str(text).encode() for text in texts.ravel()]
    return array.reshape(texts.shape)


def _priority(given: Any) -> Priority:
    """Triton's number, 0 for the usual, 1 for the first, more for later; or our word."""
    if isinstance(given, str) and given.upper() in Priority.__members__:
        return Priority[given.upper()]
    if isinstance(given, bool) or not isinstance(given, int) or given < 0:
        raise RequestError(
            Reason.BAD_OPTION,
            f"`priority={str(given)[:80]}`: expected a whole number (1 goes first), or high, normal, low.",
        )
    return (Priority.NORMAL, Priority.HIGH, Priority.NORMAL)[given] if given <= 2 else Priority.LOW


def _of_picture(number: int, error: RequestError) -> RequestError:
    return RequestError(error.reason, f"Picture {number}: {error.detail}", retry_after=error.retry_after)
