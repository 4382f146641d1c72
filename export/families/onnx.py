"""Networks that are published as ONNX. They keep their graph; pixels go in front of it and the head behind.

`export.onnx_file` reads, cuts and frees the files; `export.families.yolo_onnx` is for detectors.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession

from export.network import Network, RawOutputs
from export.onnx_file.batch import free_batch
from export.onnx_file.external import data_files
from export.onnx_file.reading import keep, one_by_one, read, reference_name
from export.options import FamilyOptions
from zoo.errors import ExportError
from zoo.model_card import ModelCard

_SLACK = 0.01  # of an opacity
_SMALLEST = 1e-30  # of a probability whose logarithm is taken


class Options(FamilyOptions, frozen=True):
    """Of a card of this family; `build` says what they mean."""

    output: str | None = None
    channels_last: bool = False
    probabilities: bool = False
    one_by_one: bool = False


def build(card: ModelCard, files: dict[str, Path]) -> Network:
    """Take one output of the ONNX file `weights` as the raw answer; the file itself, in ONNX Runtime, is the reference.

    Options: `output`, the name of that output, which may be left out where there is only one. A classifier's are logits
    [N, C], or [N, C, 1, 1]; a segmenter's are logits [N, C, h, w] or, with one channel, the opacity [N, 1, H, W] of a
    salient object.
    `probabilities = true`: a classifier's graph ends in its softmax. `channels_last = true`: it takes [N, H, W, 3].
    `one_by_one = true`: the images of a batch do not stay independent in the graph, so it runs them one by one.

    Raises:
        ExportError: not an ONNX file, another input than one float32 [N, 3, H, W] of the recipe's size, no such output,
            a batch size that is built into the graph, or a detector, whose boxes have no common form.
    """
    path = files["weights"]
    if card.task == "detect":
        raise ExportError(f"{card.name}: a detector needs a family that knows the form of its boxes; `onnx` does not")
    model, session = read(path, data_files(files))
    check_input(card, session, path)
    output = _chosen_output(card, session, path)
    image = session.get_inputs()[0].name
    shape = one_by_one(session, [output], np.zeros((1, *_input_shape(card)), np.float32))[0].shape
    name = "alpha" if card.task == "segment" and shape[1:] == (1, card.recipe.height, card.recipe.width) else "logits"
    last, softmax = (bool(card.options.get(option)) for option in ("channels_last", "probabilities"))
    one_pixel = card.task == "classify" and len(shape) == 4 and shape[1:].count(1) >= 2

    def reference(x: npt.NDArray[np.float32]) -> RawOutputs:
        answer = one_by_one(session, [output], x.transpose(0, 2, 3, 1) if last else x)[0]
        if name == "alpha" and not (answer.min() >= -_SLACK and answer.max() <= 1 + _SLACK):
            raise ExportError(
                f"{path}: the opacity {output!r} goes from {answer.min():.3g} to {answer.max():.3g} on photos instead "
                "of from 0 to 1: export the network with its sigmoid"
            )
        answer = answer.reshape(len(answer), -1) if one_pixel else answer
        return {name: np.log(np.maximum(answer, _SMALLEST)) if softmax else answer}

    module = keep(model, image, {name: output})
    if one_pixel:
        module = _flattened(module)
    if softmax:
        module = _logarithm(module)
    if last:
        module = channels_first(module)
    size, alone = (card.recipe.height, card.recipe.width), bool(card.options.get("one_by_one"))
    return Network(free_batch(module, size, path, one_by_one=alone), reference_name(path), reference)


def check_input(card: ModelCard, session: InferenceSession, path: Path) -> None:
    """Check that a file has one input, float32 [N, 3, H, W] of the recipe's size (grey: one channel).

    Raises:
        ExportError: it has not.
    """
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise ExportError(f"{path}: has the inputs {[x.name for x in inputs]}, expected one")
    want = ["N", *_input_shape(card)]
    got = inputs[0].shape
    fits = len(got) == 4 and all(not isinstance(g, int) or g == w for g, w in zip(got[1:], want[1:], strict=True))
    if inputs[0].type != "tensor(float)" or not fits:
        raise ExportError(f"{path}: takes {inputs[0].type} {got}, but the card's recipe makes tensor(float) {want}")


def _input_shape(card: ModelCard) -> tuple[int, int, int]:
    """Return the shape of one image as the file takes it."""
    channels, size = 1 if card.normalise.channels == "grey" else 3, (card.recipe.height, card.recipe.width)
    return (*size, channels) if card.options.get("channels_last") else (channels, *size)


def channels_first(model: ModelProto) -> ModelProto:
    """Let a graph that takes [N, H, W, C] take [N, C, H, W]."""
    old = model.graph.input[0]
    batch, height, width, channels = (x.dim_value or x.dim_param for x in old.type.tensor_type.shape.dim)
    name = f"{old.name}/channels_first"
    model.graph.node.insert(0, helper.make_node("Transpose", [name], [old.name], perm=[0, 2, 3, 1]))
    old.CopyFrom(helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, channels, height, width]))
    return model


def _flattened(model: ModelProto) -> ModelProto:
    """Leave the sides of the one output, [N, C, 1, 1], out."""
    name = model.graph.output[0].name
    model.graph.node[-1].output[0] = f"{name}/one_pixel"
    model.graph.node.append(helper.make_node("Flatten", [f"{name}/one_pixel"], [name]))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None]))
    return model


def _logarithm(model: ModelProto) -> ModelProto:
    """Turn the one output, probabilities, into logits: their softmax is what they were."""
    name = model.graph.output[0].name
    model.graph.node[-1].output[0] = f"{name}/softmax"
    model.graph.initializer.append(numpy_helper.from_array(np.array(_SMALLEST, np.float32), f"{name}/smallest"))
    model.graph.node.append(helper.make_node("Max", [f"{name}/softmax", f"{name}/smallest"], [f"{name}/positive"]))
    model.graph.node.append(helper.make_node("Log", [f"{name}/positive"], [name]))
    return model


def _chosen_output(card: ModelCard, session: InferenceSession, path: Path) -> str:
    names = [x.name for x in session.get_outputs()]
    chosen = card.options.get("output", names[0] if len(names) == 1 else None)
    if chosen not in names:
        raise ExportError(f"{path}: the card's option `output` is {chosen!r}, expected one of {names}")
    return str(chosen)
