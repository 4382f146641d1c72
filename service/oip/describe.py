"""The protocol's descriptions of models: metadata, configuration, the repository's index. `dataplane` calls it."""

from service.models.entry import ModelEntry, State
from service.models.inputs import RESULT, made_outputs
from service.oip.messages import ConfigTensor, IndexEntry, ModelConfig, ModelMetadata, TensorMetadata
from service.oip.tensors import DATATYPES
from service.pipelines import TASK
from zoo.pipeline_card import PipelineCard
from zoo.served_card import AnyServed, Output, Tensor

IMAGE = "image"  # the input of encoded images
PLATFORM = "onnxruntime_onnx"
_STATES = dict.fromkeys(State, "UNAVAILABLE") | {State.READY: "READY", State.LOADING: "LOADING"}
_ANY_BATCH = 1024  # rows, as `max_batch_size` of models for tensors; the real limit is the size of the body


def metadata_of(card: AnyServed) -> ModelMetadata:
    """Describe a model. One for images also has an input for encoded images and an output for its encoded answer."""
    inputs, outputs = [_tensor(x) for x in card.inputs], [_tensor(x) for x in card.outputs]
    if card.recipe is not None:
        inputs.append(TensorMetadata(IMAGE, "BYTES", (-1, 1)))
        outputs += [TensorMetadata(name, "BYTES", (-1,)) for name in made_outputs(card)]
    about = {"task": card.task, "title": card.title, "licence": card.licence.weights}
    return ModelMetadata(card.name, (card.version,), PLATFORM, tuple(inputs), tuple(outputs), about)


def config_of(card: AnyServed, max_images: int) -> ModelConfig:
    """Return a model's configuration in Triton's format, whose dimensions do not include the batch."""
    images = card.recipe is not None
    inputs = [_config(x, optional=images) for x in card.inputs]
    outputs = [_config(x) for x in card.outputs]
    if images:
        inputs.append(ConfigTensor(IMAGE, "TYPE_STRING", (1,), optional=True))
        outputs += [ConfigTensor(name, "TYPE_STRING", (1,)) for name in made_outputs(card)]
    batch = max_images if images else _ANY_BATCH
    return ModelConfig(card.name, PLATFORM, "onnxruntime", batch, tuple(inputs), tuple(outputs))


def pipeline_metadata(card: PipelineCard) -> ModelMetadata:
    """Describe a pipeline: it takes encoded images and answers results."""
    about = {"task": TASK, "title": card.title, "models": ", ".join(card.models)}
    image, result = TensorMetadata(IMAGE, "BYTES", (-1, 1)), TensorMetadata(RESULT, "BYTES", (-1,))
    return ModelMetadata(card.name, (card.version,), TASK, (image,), (result,), about)


def pipeline_config(card: PipelineCard, max_images: int) -> ModelConfig:
    """Return a pipeline's configuration in Triton's format."""
    image, result = ConfigTensor(IMAGE, "TYPE_STRING", (1,)), ConfigTensor(RESULT, "TYPE_STRING", (1,))
    return ModelConfig(card.name, TASK, TASK, max_images, (image,), (result,))


def index_entry(entry: ModelEntry) -> IndexEntry:
    """Return a model's entry of the index."""
    card = entry.card
    return IndexEntry(entry.name, card.version if card else "", _STATES[entry.state], entry.refused or entry.reason)


def _tensor(tensor: Tensor | Output) -> TensorMetadata:
    return TensorMetadata(tensor.name, DATATYPES[tensor.dtype], tuple(-1 if x is None else x for x in tensor.shape))


def _config(tensor: Tensor | Output, *, optional: bool = False) -> ConfigTensor:
    datatype = DATATYPES[tensor.dtype]
    kind = "STRING" if datatype == "BYTES" else datatype
    dims = tuple(-1 if side is None else side for side in tensor.shape[1:])
    return ConfigTensor(tensor.name, f"TYPE_{kind}", dims, optional)
