"""What an ONNX file says about itself: its input, its outputs, the notes of its exporter, pixels that it normalises.

`export.importer.draft` makes a card of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from onnx import ModelProto, NodeProto, helper, numpy_helper
from onnxruntime import InferenceSession

from export.heads import Pixels
from export.onnx_file.external import find_data_files
from export.onnx_file.reading import one_by_one, read
from export.ultralytics.notes import Notes
from zoo.errors import ExportError
from zoo.model_card import Normalise

Layout = Literal["nchw", "nhwc"]
_PASSED = {"Identity", "Cast", "Transpose"}  # on the way from the input to what normalises it


@dataclass(frozen=True)
class Graph:
    """An ONNX file with one float32 input of rank 4.

    Attributes:
        layout: of the input: [N, C, H, W] or [N, H, W, C].
        channels: 3 or 1.
        height, width: of the input in pixels, None where they are free.
        notes: what its exporter noted in it.
        normalises: the operators that normalise the input inside the graph (`Sub, Div`), or "".
        full_scale: where it normalises, 255 or 1: the brightest pixel that it expects.
    """

    path: Path
    session: InferenceSession
    layout: Layout
    channels: int
    height: int | None
    width: int | None
    notes: Notes
    normalises: str
    full_scale: float
    sigmoids: frozenset[str] = frozenset()

    def answers(self, height: int, width: int) -> dict[str, npt.NDArray[np.float32]]:
        """Return its float outputs to one image of noise in 0..1, by name.

        Maps of one pixel are returned as what they are, [N, C], where there are no other outputs of that form.

        Raises:
            ExportError: it cannot run at that size.
        """
        names = [output.name for output in self.session.get_outputs() if output.type == "tensor(float)"]
        shape = (self.channels, height, width) if self.layout == "nchw" else (height, width, self.channels)
        noise = np.random.default_rng(0).random((1, *shape), np.float32)
        if not names:
            kinds = ", ".join(f"{output.name!r} {output.type}" for output in self.session.get_outputs())
            raise ExportError(f"{self.path}: no output is float32, there are {kinds}: leave out its last step (ArgMax)")
        try:
            found = dict(zip(names, one_by_one(self.session, names, noise), strict=True))
        except Exception as error:  # ONNX Runtime's errors have no common base of use
            raise ExportError(f"{self.path} does not run on {width} x {height} pixels: {error}") from error
        found = {name: answer for name, answer in found.items() if answer.ndim > 1}  # a loss is no answer
        # Beside [N, C], they are pooled features.
        features = any(answer.ndim == 2 for answer in found.values())
        return found if features else {name: _flat(answer) for name, answer in found.items()}

    def answered(self, output: str, images: npt.NDArray[np.uint8], normalise: Normalise) -> npt.NDArray[np.float32]:
        """Return one output for images uint8 [M, H, W, 3], each answered alone: [M, ...]. Channels come first."""
        with torch.no_grad():
            x = Pixels(normalise)(torch.from_numpy(images)).numpy()
        return one_by_one(self.session, [output], x)[0]


def inspect(path: Path, layout: Layout | None = None) -> Graph:
    """Read an ONNX file.

    Args:
        path: of the file.
        layout: of its input, where one knows better than its shape.

    Raises:
        ExportError: not an ONNX file, an opset that cannot be used, or another input than one float32 image of 1 or
            3 channels with a batch dimension of 1 or of any size.
    """
    model, session = read(path, find_data_files(path).values())
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise ExportError(
            f"{path}: has the inputs {[x.name for x in inputs]}, expected one, the image; --task tensors serves it as "
            "it is"
        )
    kind, shape = inputs[0].type, inputs[0].shape
    shown = f"{path}: takes {kind.removeprefix('tensor(').removesuffix(')')} {shape}"
    if len(shape) == 3:
        raise ExportError(f"{shown}, without a batch dimension: export it with one, [N, {', '.join(map(str, shape))}]")
    if len(shape) != 4:
        raise ExportError(f"{shown}, expected a batch of images, [N, 3, H, W] or [N, H, W, 3]")
    if kind != "tensor(float)":
        raise ExportError(f"{shown}, expected float: export the network without its cast of the input")
    if isinstance(shape[0], int) and shape[0] != 1:
        raise ExportError(f"{shown}, in batches of exactly {shape[0]}: export it with a free batch size, or with 1")
    layout = layout or ("nhwc" if shape[3] in {1, 3} and shape[1] not in {1, 3} else "nchw")
    channels, height, width = shape[1:] if layout == "nchw" else (shape[3], *shape[1:3])
    channels = channels if isinstance(channels, int) else 3
    if channels not in {1, 3}:
        raise ExportError(f"{shown}: {layout.upper()} with {channels} channels, expected 3 (RGB or BGR) or 1 (grey)")
    operators, full_scale = _normalisation(model, inputs[0].name)
    return Graph(
        path=path,
        session=session,
        layout=layout,
        channels=channels,
        height=height if isinstance(height, int) else None,
        width=width if isinstance(width, int) else None,
        notes=Notes(dict(session.get_modelmeta().custom_metadata_map)),
        normalises=", ".join(operators),
        full_scale=full_scale,
        sigmoids=_sigmoids(model),
    )


def _flat(answer: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return what a classifier without its last Flatten answers, [N, C, 1, 1] or [N, 1, 1, C], as [N, C]."""
    one_pixel = answer.ndim == 4 and (1, 1) in {answer.shape[1:3], answer.shape[2:]}
    return answer.reshape(len(answer), -1) if one_pixel else answer


def _sigmoids(model: ModelProto) -> frozenset[str]:
    """The outputs that a sigmoid makes, or what it is spelled out as: 1 / (1 + e^-x) or e^x / (1 + e^x)."""
    makers = {name: node for node in model.graph.node for name in node.output}
    ones = {name for name, value in _constants(model).items() if value.size and np.all(value == 1)}

    def beside_one(node: NodeProto) -> str:
        """What an operator reads beside a constant of ones, or ""."""
        others = [name for name in node.input if name not in ones]
        return others[0] if len(others) == 1 < len(node.input) else ""

    def power(name: str) -> str:
        """The power of e of which a tensor is 1 + e^x, or ""."""
        node = makers.get(name)
        other = beside_one(node) if node is not None and node.op_type == "Add" else ""
        return other if other in makers and makers[other].op_type == "Exp" else ""

    def made(name: str) -> bool:
        node = makers.get(name)
        if node is None:
            return False
        match node.op_type:
            case "Sigmoid" | "HardSigmoid":
                return True
            case "Identity" | "Cast" | "Flatten" | "Reshape" | "Squeeze":
                return made(node.input[0])
            case "Mul":  # torch's 1 / x is its reciprocal times 1
                return made(beside_one(node))
            case "Reciprocal":
                return power(node.input[0]) != ""
            case "Div":
                above, below = node.input
                return power(below) != "" and (above in ones or above == power(below))
        return False

    return frozenset(output.name for output in model.graph.output if made(output.name))


def _constants(model: ModelProto) -> dict[str, npt.NDArray[Any]]:
    """The constant tensors of a graph by name."""
    constants = {x.name: numpy_helper.to_array(x) for x in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(helper.get_attribute_value(node.attribute[0]))
    return constants


def _normalisation(model: ModelProto, image: str) -> tuple[list[str], float]:
    """Return the operators that scale and shift the input, and the brightest pixel that they expect.

    Together they are y = scale * x + shift. Only pixels in 0..255 are divided by more than 10, or have a mean over 2.
    """
    operators: list[str] = []
    scale, shift = 1.0, 0.0
    for node, constants in _chain(model, image):
        value = float(np.mean(constants[0])) if constants else 0.0
        match node.op_type:
            case "Sub":
                shift -= value
            case "Add":
                shift += value
            case "Mul":
                scale, shift = scale * value, shift * value
            case "Div":
                scale, shift = scale / value, shift / value
            case "BatchNormalization":
                gamma, beta, mean, variance = (float(np.mean(constant)) for constant in constants)
                factor = gamma / np.sqrt(variance + 1e-5)
                scale, shift = scale * factor, (shift - mean) * factor + beta
            case _:
                continue
        operators.append(node.op_type)
    return operators, 255.0 if abs(scale) < 0.1 or abs(shift) > 2 * abs(scale) else 1.0


def _chain(model: ModelProto, image: str) -> Iterator[tuple[NodeProto, list[npt.NDArray[Any]]]]:
    """The nodes that the input alone runs through, from the first on, with their constants."""
    constants = _constants(model)
    while True:
        users = [node for node in model.graph.node if image in node.input]
        if len(users) != 1:
            return
        given = [constants[name] for name in users[0].input if name in constants]
        kind = users[0].op_type
        arithmetic = kind in {"Sub", "Add", "Mul", "Div"} and len(given) == 1 and given[0].size in {1, 3}
        arithmetic = arithmetic and not (kind == "Div" and 0 in given[0])
        if not (arithmetic or kind in _PASSED or (kind == "BatchNormalization" and len(given) == 4)):
            return
        yield users[0], given
        image = users[0].output[0]
