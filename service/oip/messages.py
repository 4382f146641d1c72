"""What the dataplane is asked and what it answers: the protocol's messages. msgspec makes the JSON of REST of them."""

from collections.abc import Mapping
from math import inf
from time import perf_counter

from msgspec import Struct, field

from service.engine.binding import Tensors
from service.engine.job import Priority
from zoo.served_card import AnyServed


class Call(Struct):
    """A request to infer.

    Attributes:
        model, version: which; an empty version is the one that is loaded.
        inputs: arrays by name; BYTES are object arrays of `bytes`.
        outputs: names of the outputs that are wanted; none: the usual ones.
        parameters: of the request: `timeout` in microseconds, `priority`, and the options of the model's task.
        deadline: as `time.perf_counter()`; the parameter `timeout` may make it earlier.
        priority: unless `parameters` have one.
        id: comes back in the answer.
        started: when its head had arrived, from which on its limits of time count, as `time.perf_counter()`.
        card: of the model that the inputs were checked against, if they were; else it is done when they are submitted.
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
    card: AnyServed | None = None


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
    """One input or output; -1 is any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class ModelMetadata(Struct):
    """Describes a model. One for images takes either of its inputs, `images` or `image`."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]
    parameters: dict[str, str] = {}


class ConfigTensor(Struct):
    """One input or output in Triton's form; `dims` leave out the batch."""

    name: str
    data_type: str
    dims: tuple[int, ...]
    optional: bool = False


class ModelConfig(Struct):
    """The part of Triton's model configuration that its clients ask for, such as `perf_analyzer`."""

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
    """How often, and how long in total, in nanoseconds."""

    count: int
    ns: int


class InferenceStatistics(Struct):
    """A model's requests by outcome, and where the time of the answered ones went."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


class ModelStatistics(Struct):
    """Counts since the server started: images or rows that were inferred, and the runs that they shared."""

    name: str
    version: str
    inference_count: int
    execution_count: int
    inference_stats: InferenceStatistics


class Statistics(Struct):
    """Statistics of one model, or of all."""

    model_stats: list[ModelStatistics]
