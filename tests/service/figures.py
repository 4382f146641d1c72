"""Two models whose answers can be computed by hand: `walker`, for poses, and `decks`, for rotated boxes.

Their graphs answer every image with the same candidates, in pixels of a 64 x 64 input, of which an image of 128 x 96
takes the rows 8 to 56: a point (x, y) of the input is at (2 x, 2 y - 16) of the image.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from zoo.card import Keypoints, Licence, Recipe
from zoo.files import sha256_of
from zoo.rotated import corners
from zoo.served_card import Golden, Output, Parity, Prediction, Provenance, ServedCard
from zoo.store import Store

SIDE = 64
POINTS = Keypoints(names=("head", "hip", "foot"), skeleton=((0, 1), (1, 2)), sigmas=(0.05, 0.1, 0.1))
POSES = {
    "boxes": np.float32([[4, 12, 36, 52], [5, 12, 36, 52], [40, -10, 80, 40], [2, 10, 20, 30]]),
    "scores": np.float32([0.9, 0.8, 0.6, 0.3]),
    "classes": np.int32([0, 0, 0, 0]),
    "keypoints": np.float32(
        [
            [[10, 20, 0.9], [30, 20, 0.8], [30, 48, 0.2]],
            [[11, 20, 0.9], [31, 20, 0.8], [31, 48, 0.2]],  # the same object
            [[50, 4, 0.9], [60, 30, 0.9], [70, 20, 0.7]],  # partly outside
            [[3, 12, 0.9], [4, 14, 0.9], [5, 16, 0.9]],
        ]
    ),
}
SKELETON = [[(20, 24, 0.9), (60, 24, 0.8), (60, 80, 0.2)], [(100, 0, 0.9), (120, 44, 0.9), (128, 24, 0.7)]]
"""The keypoints of the two poses with a score of at least 0.5, in the image."""
ROTATED = {
    "boxes": np.float32(
        [
            [20, 30, 30, 10, 0.5],
            [20.5, 30, 30, 10, 0.5],  # the same object
            [20, 30, 30, 10, 0.5],  # of another class
            [48, 32, 10, 24, 2.6],  # as one turned by 2.6 - pi
        ]
    ),
    "scores": np.float32([0.9, 0.8, 0.7, 0.6]),
    "classes": np.int32([1, 1, 0, 1]),
}
IN_IMAGE = [(40, 44, 60, 20, 0.5), (40, 44, 60, 20, 0.5), (96, 48, 20, 48, 2.6 - np.pi)]
"""The rotated boxes that are kept, in the image."""


def constant_graph(outputs: dict[str, np.ndarray]) -> onnx.ModelProto:
    """A graph that answers every image of a batch with the same arrays."""
    constants = {f"{name}_0": value[None] for name, value in outputs.items()}
    constants |= {f"{name}_rest": np.ones(value.ndim, np.int64) for name, value in outputs.items()}
    nodes = [helper.make_node("Shape", ["images"], ["batch"], start=0, end=1)]
    for name in outputs:
        nodes.append(helper.make_node("Concat", ["batch", f"{name}_rest"], [f"{name}_shape"], axis=0))
        nodes.append(helper.make_node("Expand", [f"{name}_0", f"{name}_shape"], [name]))
    kinds = {"float32": TensorProto.FLOAT, "int32": TensorProto.INT32}
    infos = [
        helper.make_tensor_value_info(name, kinds[value.dtype.name], ["N", *value.shape])
        for name, value in outputs.items()
    ]
    image = helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", SIDE, SIDE, 3])
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "constant", [image], infos, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def publish(folder: Path) -> Path:
    """Publish both models into `folder/models`, and return the path of their golden image, black, 128 x 96."""
    image = folder / "black.png"
    Image.new("RGB", (128, 96)).save(image)
    poses = tuple(
        Prediction(0, "walker", score=score, box=box, keypoints=tuple(points))
        for score, box, points in zip((0.9, 0.6), ((8, 8, 72, 88), (80, 0, 128, 64)), SKELETON, strict=True)
    )
    decks = tuple(
        Prediction(class_id, ("boat", "deck")[class_id], score=score, corners=tuple(map(tuple, ends.tolist())))
        for class_id, score, ends in zip((1, 0, 1), (0.9, 0.7, 0.6), corners(np.array(IN_IMAGE)), strict=True)
    )
    _publish(folder, image, "walker", POSES, poses, task="pose", labels=("walker",), keypoints=POINTS)
    _publish(folder, image, "decks", ROTATED, decks, task="obb", labels=("boat", "deck"))
    return image


def _publish(
    folder: Path, image: Path, name: str, outputs: dict[str, np.ndarray], golden: tuple[Prediction, ...], **more: Any
) -> None:
    model = folder / f"{name}.onnx"
    onnx.save_model(constant_graph(outputs), model)
    card = ServedCard(
        name=name,
        version="1",
        family="hand",
        title=name,
        homepage="",
        licence=Licence("Apache-2.0", "Apache-2.0"),
        recipe=Recipe(SIDE, SIDE, "letterbox"),
        outputs=tuple(Output(key, value.dtype.name, (None, *value.shape)) for key, value in outputs.items()),
        nms=True,
        precision="fp32",
        opset=20,
        sha256=sha256_of(model),
        size=model.stat().st_size,
        provenance=Provenance({}, {}, "2026-11-20T00:00:00Z", {}),
        parity=Parity("by hand", 1e-4, (1,), {}),
        golden=(Golden(image.name, sha256_of(image), golden),),
        **more,
    )
    Store(folder / "models").publish(card, {"model.onnx": model, f"golden/{image.name}": image})
