"""What the rows of a detector's one output hold, and the graph that decodes them. `yolo_onnx` puts it behind a file."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from export.convert import OPSET

_CORNERS = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [-0.5, 0, 0.5, 0], [0, -0.5, 0, 0.5]], np.float32)
"""[centre x, centre y, width, height] times this is xyxy."""
_STRIDES = (8, 16, 32)
"""Of the cells that YOLOX has, in pixels."""


@dataclass(frozen=True)
class Layout:
    """What one row of answers holds, part by part with its length, along `axis` of [N, ., .].

    Attributes:
        nms: whether non-maximum suppression is still owed.
        unit: whether boxes are in 0..1 of the input's sides; else they are in its pixels.
        in_cells: whether there is a row for each of YOLOX's cells, from which the centre of its box is counted, in
            strides; its size is the logarithm of strides.
    """

    parts: Mapping[str, int]
    axis: int = 2
    nms: bool = True
    unit: bool = False
    in_cells: bool = False

    def fits(self, shape: tuple[int, ...], size: tuple[int, int]) -> bool:
        """Return whether rows of this shape can be of this layout, for an input of a height and width."""
        cells = len(_cells(size)[0]) if self.in_cells else shape[1]
        return shape[self.axis] == sum(self.parts.values()) and shape[1] == cells


def decode_rows(layout: Layout, size: tuple[int, int], points: int) -> ModelProto:
    """Make the graph from `decode/rows` to raw answers as `export.network.Network` names them.

    Args:
        layout: of the rows.
        size: height and width of the input, in pixels.
        points: how many keypoints a pose has.
    """
    nodes, constants = [], {"decode/lengths": np.array(list(layout.parts.values()))}
    parts = {name: f"decode/{name}" for name in layout.parts}
    nodes.append(helper.make_node("Split", ["decode/rows", "decode/lengths"], list(parts.values()), axis=layout.axis))
    if layout.axis == 1:
        for name, part in ((name, part) for name, part in parts.items() if name != "keypoints"):
            parts[name] = f"{part}/last"
            nodes.append(helper.make_node("Transpose", [part], [parts[name]], perm=[0, 2, 1]))
    if layout.in_cells:
        more, cells = _leave_cells(parts["centres"], size)
        parts["centres"], nodes, constants = more[-1].output[0], nodes + more, constants | cells
    if "angle" in parts:  # centre and size stay
        box = parts["centres" if "centres" in parts else "boxes"]
        nodes.append(helper.make_node("Concat", [box, parts["angle"]], ["boxes"], axis=2))
    elif "centres" in parts:
        sides = np.array([size[1], size[0]] * 2, np.float32) if layout.unit else np.ones(4, np.float32)
        constants["decode/corners"] = _CORNERS * sides
        nodes.append(helper.make_node("MatMul", [parts["centres"], "decode/corners"], ["boxes"]))
    else:
        nodes.append(helper.make_node("Identity", [parts["boxes"]], ["boxes"]))
    if "objectness" in parts:
        nodes.append(helper.make_node("Mul", [parts["scores"], parts["objectness"]], ["scores"]))
    elif "scores" in parts:
        nodes.append(helper.make_node("Identity", [parts["scores"]], ["scores"]))
    else:
        constants["decode/last"] = np.array([2])
        nodes.append(helper.make_node("Squeeze", [parts["score"], "decode/last"], ["scores"]))
        nodes.append(helper.make_node("Squeeze", [parts["class"], "decode/last"], ["classes"]))
    if "coefficients" in parts:
        nodes.append(helper.make_node("Identity", [parts["coefficients"]], ["coefficients"]))
    if "keypoints" in parts:
        more, split = _split_keypoints(parts["keypoints"], points, layout)
        nodes, constants = nodes + more, constants | split
    ranks = {"boxes": 3, "scores": 3 if "scores" in parts else 2, "classes": 2, "coefficients": 3, "keypoints": 4}
    made = {name for node in nodes for name in node.output}
    graph = helper.make_graph(
        nodes,
        "decode",
        [helper.make_tensor_value_info("decode/rows", TensorProto.FLOAT, [None, None, None])],
        [helper.make_tensor_value_info(k, TensorProto.FLOAT, [None] * n) for k, n in ranks.items() if k in made],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets))


def _split_keypoints(name: str, points: int, layout: Layout) -> tuple[list[NodeProto], dict[str, npt.NDArray[Any]]]:
    """From keypoints in a row to `keypoints` [N, A, points, 3], and the constants for it."""
    length = layout.parts["keypoints"] // points
    split = "keypoints" if length == 3 else "decode/places"
    if layout.axis == 1:  # split before it is turned: ONNX Runtime's optimizer, turning it after, fixes the batch
        constants = {"decode/points": np.array([0, points, length, -1])}
        nodes = [
            helper.make_node("Reshape", [name, "decode/points"], ["decode/split"]),
            helper.make_node("Transpose", ["decode/split"], [split], perm=[0, 3, 1, 2]),
        ]
    else:
        constants = {"decode/points": np.array([0, 0, points, length])}
        nodes = [helper.make_node("Reshape", [name, "decode/points"], [split])]
    if length != 3:  # the score of a network that gives none is 1
        constants |= {"decode/sure": np.array([0, 0, 0, 0, 0, 0, 0, 1]), "decode/one": np.array(1, np.float32)}
        nodes.append(helper.make_node("Pad", [split, "decode/sure", "decode/one"], ["keypoints"]))
    return nodes, constants


def _leave_cells(name: str, size: tuple[int, int]) -> tuple[list[NodeProto], dict[str, npt.NDArray[Any]]]:
    """From places in cells and logarithms of sizes to `centres`, in pixels, and the constants for it.

    As Megvii's `demo_postprocess` does: its exports leave that to whoever runs them.
    """
    corners, strides = _cells(size)
    nodes = [
        helper.make_node("Split", [name, "decode/pair"], ["decode/places", "decode/logarithms"], axis=2),
        helper.make_node("Add", ["decode/places", "decode/cells"], ["decode/centres/strides"]),
        helper.make_node("Exp", ["decode/logarithms"], ["decode/sizes/strides"]),
        helper.make_node("Concat", ["decode/centres/strides", "decode/sizes/strides"], ["decode/all/strides"], axis=2),
        helper.make_node("Mul", ["decode/all/strides", "decode/strides"], ["decode/all/pixels"]),
    ]
    return nodes, {"decode/pair": np.array([2, 2]), "decode/cells": corners[None], "decode/strides": strides[None]}


def _cells(size: tuple[int, int]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the top left corners of YOLOX's cells [A, 2], x and y in strides, and their strides [A, 1]."""
    grids = [
        np.indices((size[0] // stride, size[1] // stride), np.float32)[::-1].reshape(2, -1).T for stride in _STRIDES
    ]
    strides = [np.full((len(grid), 1), stride, np.float32) for grid, stride in zip(grids, _STRIDES, strict=True)]
    return np.concatenate(grids), np.concatenate(strides)
