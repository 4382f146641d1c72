"""Paddle's operators in torch. `OPERATORS` knows them by type; another one is an entry there.

Each is a function of the operator and of its input tensors by parameter. They are defined in Paddle's operator
definitions (`paddle/phi/ops/yaml`); settings that would change the answer and are not known are refused.
"""

import math
import operator as python
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812, the name that everyone knows it by
from torch import Tensor

from export.paddle.program import Operator
from zoo.errors import ExportError

Inputs = Mapping[str, list[Tensor]]
Function = Callable[[Operator, Inputs], list[Tensor]]


_READ = {
    "batch_norm": {"X", "Mean", "Variance", "Scale", "Bias"},
    "conv2d": {"Input", "Filter"},
    "depthwise_conv2d": {"Input", "Filter"},
}
"""The inputs that an operator here reads; of all others X and Y."""
_ONLY: Mapping[str, set[Any]] = {
    "beta": {1.0},  # of swish
    "data_format": {"NCHW", "AnyLayout", ""},
    "data_layout": {"NCHW", "AnyLayout", ""},
    "fuse_activation": {""},
    "fuse_relu": {False},
    "fuse_residual_connection": {False},
    "threshold": {6.0},  # of relu6 and hard_swish
}
"""What a setting must be, whichever operator has it."""


def refuse_unknown(op: Operator) -> None:
    """Refuse inputs and settings that would change an operator's answer, and that are not known here.

    Raises:
        ExportError: it has one of them; the message names it.
    """
    read = _READ.get(op.kind, {"X", "Y"})
    if more := [name for name, variables in op.inputs.items() if variables and name not in read]:
        raise ExportError(f"{op.where}: not supported with the input {more[0]}")
    for name, known in _ONLY.items():
        _require(op, name not in op.settings or op.settings[name] in known, name)


def _require(op: Operator, condition: bool, *names: str) -> None:
    if not condition:
        settings = ", ".join(f"{name} = {op.settings.get(name)!r}" for name in names)
        raise ExportError(f"{op.where}: not supported with {settings}")


def _unary(function: Callable[[Tensor], Tensor]) -> Function:
    return lambda _, inputs: [function(inputs["X"][0])]


def _binary(function: Callable[[Any, Any], Any]) -> Function:
    def run(op: Operator, inputs: Inputs) -> list[Tensor]:
        x, y = inputs["X"][0], inputs["Y"][0]
        axis = op.settings.get("axis", -1)
        if axis >= 0:  # where y's dimensions lie among x's; -1 aligns as numpy does
            y = y.reshape(*y.shape, *[1] * (x.ndim - axis - y.ndim))
        return [function(x, y)]

    return run


def _convolution(op: Operator, inputs: Inputs) -> list[Tensor]:
    paddings, algorithm = op.settings["paddings"], op.settings.get("padding_algorithm", "EXPLICIT")
    _require(op, algorithm == "EXPLICIT" and len(paddings) == 2, "padding_algorithm", "paddings")
    strides, dilations = list(op.settings["strides"]), list(op.settings["dilations"])
    x, kernel = inputs["Input"][0], inputs["Filter"][0]
    return [F.conv2d(x, kernel, None, strides, list(paddings), dilations, op.settings["groups"])]


def _batch_norm(op: Operator, inputs: Inputs) -> list[Tensor]:
    x, mean, variance, scale, bias = (inputs[name][0] for name in ("X", "Mean", "Variance", "Scale", "Bias"))
    return [F.batch_norm(x, mean, variance, scale, bias, eps=op.settings["epsilon"])]


def _pool(op: Operator, inputs: Inputs) -> list[Tensor]:
    x, s = inputs["X"][0], op.settings
    average = s["pooling_type"] == "avg"
    kernel, padding = list(s["ksize"]), list(s["paddings"])
    if s["global_pooling"] or (s["adaptive"] and kernel == [1, 1]):
        return [x.mean((2, 3), keepdim=True) if average else x.amax((2, 3), keepdim=True)]
    _require(op, not s["adaptive"], "adaptive", "ksize")
    _require(
        op, s.get("padding_algorithm", "EXPLICIT") == "EXPLICIT" and len(padding) == 2, "padding_algorithm", "paddings"
    )
    if average:
        counted = not s["exclusive"]
        return [F.avg_pool2d(x, kernel, list(s["strides"]), padding, s["ceil_mode"], count_include_pad=counted)]
    return [F.max_pool2d(x, kernel, list(s["strides"]), padding, ceil_mode=s["ceil_mode"])]


def _hard_swish(op: Operator, inputs: Inputs) -> list[Tensor]:
    known = tuple(op.settings.get(name) for name in ("threshold", "scale", "offset")) == (6, 6, 3)
    _require(op, known, "threshold", "scale", "offset")
    return [F.hardswish(inputs["X"][0])]


def _hard_sigmoid(op: Operator, inputs: Inputs) -> list[Tensor]:
    slope, offset = op.settings["slope"], op.settings["offset"]
    if math.isclose(slope, 1 / 6, rel_tol=1e-6) and offset == 0.5:
        return [F.hardsigmoid(inputs["X"][0])]
    return [(inputs["X"][0] * slope + offset).clamp(0, 1)]


def _scale(op: Operator, inputs: Inputs) -> list[Tensor]:
    x, scale, bias = inputs["X"][0], op.settings["scale"], op.settings["bias"]
    return [x * scale + bias if op.settings["bias_after_scale"] else (x + bias) * scale]


def _dropout(op: Operator, inputs: Inputs) -> list[Tensor]:
    kept = 1 - op.settings["dropout_prob"]
    return [inputs["X"][0] * (1 if op.settings["dropout_implementation"] == "upscale_in_train" else kept)]


def _nearest(op: Operator, inputs: Inputs) -> list[Tensor]:
    x, scale = inputs["X"][0], list(op.settings["scale"])
    _require(op, not op.settings["align_corners"] and len(scale) == 2, "align_corners", "scale")
    return [F.interpolate(x, [int(side * by) for side, by in zip(x.shape[2:], scale, strict=True)], mode="nearest")]


def _reshape(op: Operator, inputs: Inputs) -> list[Tensor]:
    x, shape = inputs["X"][0], op.settings["shape"]
    return [x.reshape([x.shape[i] if side == 0 else side for i, side in enumerate(shape)])]


def _split(op: Operator, inputs: Inputs) -> list[Tensor]:
    x, sections, axis = inputs["X"][0], list(op.settings["sections"]), op.settings["axis"]
    return list(torch.split(x, sections or x.shape[axis] // op.settings["num"], axis))


def _matmul(op: Operator, inputs: Inputs) -> list[Tensor]:
    x, y = inputs["X"][0], inputs["Y"][0]
    return [(x.mT if op.settings["trans_x"] else x) @ (y.mT if op.settings["trans_y"] else y)]


OPERATORS: dict[str, Function] = {
    "batch_norm": _batch_norm,
    "concat": lambda op, inputs: [torch.cat(inputs["X"], op.settings["axis"])],
    "conv2d": _convolution,
    "depthwise_conv2d": _convolution,
    "dropout": _dropout,
    "elementwise_add": _binary(python.add),
    "elementwise_div": _binary(python.truediv),
    "elementwise_mul": _binary(python.mul),
    "elementwise_sub": _binary(python.sub),
    "flatten_contiguous_range": lambda op, inputs: [
        inputs["X"][0].flatten(op.settings["start_axis"], op.settings["stop_axis"])
    ],
    "hard_sigmoid": _hard_sigmoid,
    "hard_swish": _hard_swish,
    "matmul_v2": _matmul,
    "nearest_interp_v2": _nearest,
    "pool2d": _pool,
    "relu": _unary(torch.relu),
    "relu6": _unary(F.relu6),
    "reshape2": _reshape,
    "scale": _scale,
    "sigmoid": _unary(torch.sigmoid),
    "softmax": lambda op, inputs: [inputs["X"][0].softmax(op.settings["axis"])],
    "split": _split,
    "sqrt": _unary(torch.sqrt),
    "swish": _unary(F.silu),
    "tanh": _unary(torch.tanh),
    "transpose2": lambda op, inputs: [inputs["X"][0].permute(*op.settings["axis"])],
}
