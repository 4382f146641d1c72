"""ONNX files that answer an image with an image: style, super-resolution, denoising, matting.

A card of this family has `task = "tensors"` and a recipe, and the source `weights`.
`zooserve add --task image` writes it.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, helper, numpy_helper

from export.families.onnx import channels_first
from export.network import OnnxNetwork, TensorNetwork
from export.onnx_file.batch import free_batch
from export.onnx_file.external import data_files
from export.onnx_file.reading import keep, read
from export.options import FamilyOptions
from zoo.errors import ExportError
from zoo.model_card import TensorCard

_CHANNELS = (1, 3, 4)


class Options(FamilyOptions, frozen=True):
    """Of a card of this family; `build_tensors` says what they mean."""

    output: str | None = None
    channels_last: bool = False
    scale: float = 255.0
    offset: float = 0.0


def build_tensors(card: TensorCard, files: dict[str, Path]) -> TensorNetwork:
    """Take one output of the ONNX file `weights` as the image, grey, RGB or RGBA.

    Options: `output`, the name of that output, which may be left out where there is only one. `scale`, `offset`: its
    values times `scale`, plus `offset`, are in 0..255. `channels_last = true`: it takes and answers [N, H, W, C].

    Raises:
        ExportError: not an ONNX file, another input than one float32 image of the recipe's size, no such output, one
            that is no image, or a batch size that is built into the graph.
    """
    path, recipe = files["weights"], card.recipe
    if recipe is None:
        raise ExportError(f"{card.name}: a card of the family `image_to_image` has a `recipe`")
    model, session = read(path, data_files(files))
    names = [x.name for x in session.get_outputs()]
    output = card.options.get("output", names[0] if len(names) == 1 else None)
    if output not in names:
        raise ExportError(f"{path}: the card's option `output` is {output!r}, expected one of {names}")
    last = bool(card.options.get("channels_last"))
    inputs = session.get_inputs()
    channels = 1 if card.normalise.channels == "grey" else 3
    want = [recipe.height, recipe.width, channels] if last else [channels, recipe.height, recipe.width]
    got = inputs[0].shape[1:]
    if len(inputs) != 1 or any(isinstance(side, int) and side != own for side, own in zip(got, want, strict=False)):
        taken = ", ".join(f"{x.name!r} {x.shape}" for x in inputs)
        raise ExportError(f"{path}: takes {taken}, but the card's recipe makes one image [N, {str(want)[1:-1]}]")
    module = _as_image(keep(model, inputs[0].name, {"answer": str(output)}), card, last=last)
    network = OnnxNetwork(free_batch(module, (recipe.height, recipe.width), path), path)
    shape = network.run(np.zeros((1, channels, recipe.height, recipe.width), np.float32))["image"].shape
    if len(shape) != 4 or shape[1] not in _CHANNELS:
        raise ExportError(f"{path}: {output!r} is {list(shape)}, expected an image of 1, 3 or 4 channels [N, C, h, w]")
    return TensorNetwork(network, {})


def _as_image(model: ModelProto, card: TensorCard, *, last: bool) -> ModelProto:
    """Let a graph take [N, 3, H, W] and answer with `image` [N, C, h, w] in 0..255."""
    graph, made = model.graph, "answer"
    if last:
        model = channels_first(model)
        graph.node.append(helper.make_node("Transpose", [made], ["answer/first"], perm=[0, 3, 1, 2]))
        made = "answer/first"
    for name, usual in (("scale", 255.0), ("offset", 0.0)):
        value = np.array(card.options.get(name, usual), np.float32)
        graph.initializer.append(numpy_helper.from_array(value, f"answer/{name}"))
    graph.node.append(helper.make_node("Mul", [made, "answer/scale"], ["answer/scaled"]))
    graph.node.append(helper.make_node("Add", ["answer/scaled", "answer/offset"], ["image"]))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["N", "C", "h", "w"]))
    return model
