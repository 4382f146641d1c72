"""Paddle's operators against their definitions, one case a line."""

import numpy as np
import pytest
import torch

from export.paddle.operators import OPERATORS, refuse_unknown
from export.paddle.program import Operator
from zoo.errors import ExportError

X = torch.arange(24, dtype=torch.float32).reshape(1, 2, 3, 4)
POOL = {"pooling_type": "avg", "ksize": [2, 2], "strides": [2, 2], "paddings": [0, 0], "global_pooling": False,
        "adaptive": False, "ceil_mode": False, "exclusive": True}  # fmt: skip
BATCH_NORM = {"Mean": [1, 2], "Variance": [4, 9], "Scale": [2, 3], "Bias": [10, 20]}


def run(kind, settings, **inputs):
    tensors = {name: [torch.as_tensor(v, dtype=torch.float32) for v in values] for name, values in inputs.items()}
    return [y.numpy() for y in OPERATORS[kind](Operator(kind, {}, {}, settings, f"operator 7, {kind}"), tensors)]


@pytest.mark.parametrize(
    ("kind", "settings", "inputs", "expected"),
    [
        ("elementwise_add", {"axis": 1}, {"X": [X], "Y": [[100, 200]]}, X + torch.tensor([100, 200.0]).view(2, 1, 1)),
        ("elementwise_sub", {"axis": -1}, {"X": [X], "Y": [[0, 1, 2, 3]]}, X - torch.arange(4)),
        ("elementwise_mul", {"axis": 1}, {"X": [X], "Y": [np.ones((2, 3)) * 2]}, X * 2),
        ("elementwise_div", {"axis": -1}, {"X": [X], "Y": [[[[4]]]]}, X / 4),
        ("scale", {"scale": 2.0, "bias": 1.0, "bias_after_scale": True}, {"X": [X]}, X * 2 + 1),
        ("scale", {"scale": 2.0, "bias": 1.0, "bias_after_scale": False}, {"X": [X]}, X * 2 + 2),
        ("dropout", {"dropout_prob": 0.25, "dropout_implementation": "downgrade_in_infer"}, {"X": [X]}, X * 0.75),
        ("dropout", {"dropout_prob": 0.25, "dropout_implementation": "upscale_in_train"}, {"X": [X]}, X),
        ("reshape2", {"shape": [0, -1, 6]}, {"X": [X]}, X.reshape(1, 4, 6)),
        ("transpose2", {"axis": [0, 2, 3, 1]}, {"X": [X]}, X.permute(0, 2, 3, 1)),
        ("flatten_contiguous_range", {"start_axis": 1, "stop_axis": 2}, {"X": [X]}, X.reshape(1, 6, 4)),
        ("matmul_v2", {"trans_x": False, "trans_y": True}, {"X": [X[0, 0]], "Y": [np.eye(4)]}, X[0, 0]),
        ("nearest_interp_v2", {"align_corners": False, "scale": [2.0, 1.0]}, {"X": [X]}, X.repeat_interleave(2, 2)),
        ("hard_sigmoid", {"slope": 0.2, "offset": 0.5}, {"X": [[-9, 0, 1, 9]]}, [0, 0.5, 0.7, 1]),
        ("hard_sigmoid", {"slope": 1 / 6, "offset": 0.5}, {"X": [[-3, 0, 3]]}, [0, 0.5, 1]),
        ("hard_swish", {"threshold": 6.0, "scale": 6.0, "offset": 3.0}, {"X": [[-3, 1, 6]]}, [0, 4 / 6, 6]),
        ("softmax", {"axis": 0}, {"X": [[0, 0]]}, [0.5, 0.5]),
        ("batch_norm", {"epsilon": 0.0}, {"X": [X]} | {key: [v] for key, v in BATCH_NORM.items()},
         torch.stack([X[:, 0] + 9, X[:, 1] + 18], 1)),
        ("pool2d", POOL, {"X": [X[:, :1]]}, [[[[2.5, 4.5]]]]),
        ("pool2d", POOL | {"ceil_mode": True}, {"X": [X[:, :1]]}, [[[[2.5, 4.5], [8.5, 10.5]]]]),
        ("pool2d", POOL | {"paddings": [1, 0]}, {"X": [X[:, :1]]}, [[[[0.5, 2.5], [6.5, 8.5]]]]),
        ("pool2d", POOL | {"paddings": [1, 0], "exclusive": False}, {"X": [X[:, :1]]}, [[[[0.25, 1.25], [6.5, 8.5]]]]),
        ("pool2d", POOL | {"pooling_type": "max"}, {"X": [X[:, :1]]}, [[[[5, 7]]]]),
        ("pool2d", POOL | {"adaptive": True, "ksize": [1, 1]}, {"X": [X]}, [[[[5.5]], [[17.5]]]]),
        ("pool2d", POOL | {"global_pooling": True, "pooling_type": "max"}, {"X": [X]}, [[[[11]], [[23]]]]),
    ],
)  # fmt: skip
def test_as_defined(kind, settings, inputs, expected):
    (got,) = run(kind, settings, **inputs)
    np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("settings", [{"sections": [], "num": 2, "axis": 3}, {"sections": [2, 2], "num": 0, "axis": 3}])
def test_split_by_number_or_sizes(settings):
    left, right = run("split", settings, X=[X])
    np.testing.assert_array_equal(left, X[..., :2])
    np.testing.assert_array_equal(right, X[..., 2:])


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("conv2d", {"paddings": [0, 0], "padding_algorithm": "SAME"}, r"padding_algorithm = 'SAME', paddings"),
        ("conv2d", {"paddings": [0, 1, 0, 1]}, r"padding_algorithm = None, paddings = \[0, 1, 0, 1\]"),
        ("pool2d", POOL | {"adaptive": True}, r"adaptive = True, ksize = \[2, 2\]"),
        ("hard_swish", {"threshold": 6.0, "scale": 5.0, "offset": 3.0}, "scale = 5.0"),
        ("nearest_interp_v2", {"align_corners": True, "scale": [2.0, 2.0]}, "align_corners = True"),
    ],
)
def test_settings_that_are_not_known_are_refused(kind, settings, message):
    with pytest.raises(ExportError, match=rf"operator 7, {kind}: not supported with .*{message}"):
        run(kind, settings, X=[X])


@pytest.mark.parametrize(
    ("kind", "settings", "inputs", "message"),
    [
        ("conv2d", {"data_format": "NHWC"}, ["Input", "Filter"], "data_format = 'NHWC'"),
        ("pool2d", {"data_format": "NHWC"}, ["X"], "data_format = 'NHWC'"),
        ("batch_norm", {"data_layout": "NHWC"}, ["X"], "data_layout = 'NHWC'"),
        ("conv2d", {"fuse_relu": True}, ["Input"], "fuse_relu = True"),
        ("swish", {"beta": 2.0}, ["X"], "beta = 2.0"),
        ("relu6", {"threshold": 3.0}, ["X"], "threshold = 3.0"),
        ("conv2d", {}, ["Input", "Filter", "Bias"], "the input Bias"),
        ("reshape2", {}, ["X", "ShapeTensor"], "the input ShapeTensor"),
        ("nearest_interp_v2", {}, ["X", "OutSize"], "the input OutSize"),
    ],
)
def test_what_would_change_the_answer_is_refused(kind, settings, inputs, message):
    with pytest.raises(ExportError, match=f"operator 7, {kind}: not supported with {message}"):
        refuse_unknown(Operator(kind, dict.fromkeys(inputs, ("v",)), {}, settings, f"operator 7, {kind}"))
