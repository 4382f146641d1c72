"""The protocol's messages, which the dataplane takes and returns. For REST, msgspec encodes them as JSON."""

from collections.abc import Mapping
from math import inf
from time import perf_counter

from msgspec import Struct, field

from service.arrays import Tensors
from service.engine.job import Priority
from zoo.pipeline_card import PipelineCard
from zoo.served_card import AnyServed

AnyCard = AnyServed | PipelineCard
"""Pipelines are asked for as models are."""


class Call(Struct):
    """An inference request. Times are those of `time.perf_counter()` in seconds.

    Attributes:
        model, version: of the model; an empty version means the one that is loaded.
        inputs: arrays by name; BYTES are object arrays of `bytes`.
        outputs: names of the outputs to return; empty: the default ones.
        parameters: of the request: `timeout` in microseconds, `priority`, and the options of the model's task.
        deadline: the parameter `timeout` may make it earlier.
        priority: unless `parameters` have one.
        id: the answer has the same one.
        started: when its head had arrived. `timeout` counts from then.
        card: of the model, or pipeline, for which the inputs were checked. None: `submit` will check them.
    """

    model: str
    inputs: Tensors
    version: str = ""
    outputs: tuple[str, ...] = ()
    parameters: Mapping[str, object] = {}
    deadline: float = inf
    priority: Priority = Priority.NORMAL
    id: str = ""
    started: float = field(default_factory=perf_counter)
    card: AnyCard | None = None


class Answer(Struct):
    """The answer to a call. BYTES are object arrays of `bytes`."""

    model: str
    version: str
    outputs: Tensors
    id: str = ""


class ServerMetadata(Struct):
    """Describes the server."""

    name: str
    version: str
    extensions: tuple[str, ...]


class TensorMetadata(Struct):
    """One input or output; -1 in its shape means any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class ModelMetadata(Struct):
    """Describes a model. A request to a model for images has exactly one of its two inputs."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]
    parameters: dict[str, str] = {}


class ConfigTensor(Struct):
    """One input or output in Triton's format; `dims` do not include the batch."""

    name: str
    data_type: str
    dims: tuple[int, ...]
    optional: bool = False


class ModelConfig(Struct):
    """The part of Triton's model configuration that clients such as `perf_analyzer` use."""

    name: str
    platform: str
    backend: str
    max_batch_size: int
    input: tuple[ConfigTensor, ...]
    output: tuple[ConfigTensor, ...]
    dynamic_batching: dict[str, object] = {}


class IndexEntry(Struct):
    """One model of the repository."""

    name: str
    version: str
    state: str
    reason: str


class Duration(Struct):
    """A number of events and their total duration in nanoseconds."""

    count: int
    ns: int


class InferenceStatistics(Struct):
    """A model's requests by outcome, and the time that each stage of the answered ones took."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


class ModelStatistics(Struct):
    """Counts since the server started: inferred images or rows, and the runs (batches) in which they were inferred."""

    name: str
    version: str
    inference_count: int
    execution_count: int
    inference_stats: InferenceStatistics


class Statistics(Struct):
    """Statistics of one model, or of all."""

    model_stats: list[ModelStatistics]
