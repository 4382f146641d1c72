"""Networks that are published as ONNX. They keep their graph; pixels go in front of it and the head behind."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import ModelProto, TensorProto, helper
from onnx.utils import Extractor
from onnxruntime import InferenceSession

from export.network import Network, RawOutputs
from zoo.card import ModelCard
from zoo.errors import ExportError

_OLDEST_OPSET = 7  # older files have other broadcasting and batch normalisation, which cannot be converted


def build(card: ModelCard, files: dict[str, Path]) -> Network:
    """Take one output of the ONNX file `weights` as the raw answer; the file itself, in ONNX Runtime, is the reference.

    Options: `output`, the name of that output, which may be left out where there is only one. A classifier's are logits
    [N, C]; a segmenter's are logits [N, C, h, w] or, with one channel, the opacity [N, 1, H, W] of a salient object.

    Raises:
        ExportError: not an ONNX file, another input than one float32 [N, 3, H, W] of the recipe's size, no such output,
            a batch size that is built into the graph, or a detector, whose boxes have no common form.
    """
    path = files["weights"]
    if card.task == "detect":
        raise ExportError(f"{card.name}: a detector needs a family that knows the form of its boxes; `onnx` does not")
    model, session = _read(path)
    _check_input(card, session, path)
    output = _chosen_output(card, session, path)
    picture = session.get_inputs()[0].name
    size = (card.recipe.height, card.recipe.width)
    shape = session.run([output], {picture: np.zeros((1, 3, *size), np.float32)})[0].shape
    name = "alpha" if card.task == "segment" and shape[1:] == (1, *size) else "logits"

    def reference(x: npt.NDArray[np.float32]) -> RawOutputs:
        # One at a time: the published graph may have no other batch size.
        return {name: np.concatenate([session.run([output], {picture: x[i : i + 1]})[0] for i in range(len(x))])}

    module = _free_batch(model, picture, output, name, shape)
    try:
        _session(module.SerializeToString()).run([name], {picture: np.zeros((2, 3, *size), np.float32)})
    except Exception as error:  # ONNX Runtime's errors have no common base of use
        raise ExportError(
            f"{path}: the graph has its batch size built in, export it with a free one: {error}"
        ) from error
    return Network(module, f"onnxruntime {onnxruntime.__version__}, {path.name} as published", reference)


def _session(model: Path | bytes) -> InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # a refusal is raised, it need not be printed too
    return InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _read(path: Path) -> tuple[ModelProto, InferenceSession]:
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
        session = _session(path)
    except Exception as error:  # protobuf, the checker and ONNX Runtime raise errors of many kinds
        raise ExportError(f"{path}: not an ONNX file that can be run: {error}") from error
    opset = next((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), 0)
    if opset < _OLDEST_OPSET:
        raise ExportError(
            f"{path}: opset {opset} is too old, it must be at least {_OLDEST_OPSET}; convert the file first"
        )
    return model, session


def _check_input(card: ModelCard, session: InferenceSession, path: Path) -> None:
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise ExportError(f"{path}: has the inputs {[x.name for x in inputs]}, expected one")
    want = ["N", 3, card.recipe.height, card.recipe.width]
    got = inputs[0].shape
    fits = len(got) == 4 and all(not isinstance(g, int) or g == w for g, w in zip(got[1:], want[1:], strict=True))
    if inputs[0].type != "tensor(float)" or not fits:
        raise ExportError(f"{path}: takes {inputs[0].type} {got}, but the card's recipe makes tensor(float) {want}")


def _chosen_output(card: ModelCard, session: InferenceSession, path: Path) -> str:
    names = [x.name for x in session.get_outputs()]
    chosen = card.options.get("output", names[0] if len(names) == 1 else None)
    if chosen not in names:
        raise ExportError(f"{path}: the card's option `output` is {chosen!r}, expected one of {names}")
    return str(chosen)


def _free_batch(model: ModelProto, picture: str, output: str, name: str, shape: tuple[int, ...]) -> ModelProto:
    """Keep what leads from the picture to one output, call that `name`, and give both any batch size."""
    freed = Extractor(model).extract_model([picture], [output])
    del freed.graph.value_info[:]  # shapes with the old batch size
    if output != name:
        freed.graph.node.append(helper.make_node("Identity", [output], [name]))
    answer = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape[1:]])
    freed.graph.output[0].CopyFrom(answer)
    freed.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    return freed
