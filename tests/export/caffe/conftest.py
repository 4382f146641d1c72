"""Small networks with the layers and the wiring of their big namesakes, and weights in Caffe's format.

The random numbers are numpy's legacy generator's, whose stream is frozen: `reference.npz` holds what another reader of
Caffe's files answered to exactly these (see `record_reference.py`).
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from google.protobuf import text_format

from export.caffe.net import NetParameter

HEIGHT, WIDTH = 29, 34


class CaffeFiles(NamedTuple):
    name: str
    prototxt: Path
    weights: Path
    images: np.ndarray  # float32 [2, 3, 29, 34]


def _layer(kind: str, name: str, bottom: str, top: str = "", settings: str = "") -> str:
    bottoms = " ".join(f'bottom: "{one}"' for one in bottom.split())
    return f'layer {{ name: "{name}" type: "{kind}" {bottoms} top: "{top or name}" {settings} }}\n'


def _convolution(name: str, bottom: str, settings: str) -> str:
    return _layer("Convolution", name, bottom, "", f"convolution_param {{ {settings} }}")


def _relu(blob: str, settings: str = "") -> str:
    return _layer("ReLU", f"relu_{blob}", blob, blob, settings)


def _pool(name: str, bottom: str, settings: str) -> str:
    return _layer("Pooling", name, bottom, "", f"pooling_param {{ {settings} }}")


def _inner_product(name: str, bottom: str, outputs: int) -> str:
    return _layer("InnerProduct", name, bottom, "", f"inner_product_param {{ num_output: {outputs} }}")


def _normalised(name: str, bottom: str, settings: str) -> str:
    """A convolution without biases, batch normalisation and scale, in place, as in Caffe's ResNets."""
    return (
        _convolution(name, bottom, f"{settings} bias_term: false")
        + _layer("BatchNorm", f"bn_{name}", name, name, "batch_norm_param { use_global_stats: true eps: 1e-4 }")
        + _layer("Scale", f"scale_{name}", name, name, "scale_param { bias_term: true }")
    )


_LRN = "lrn_param { local_size: 5 alpha: 0.5 beta: 0.75 }"
_INPUT = 'input: "data" input_dim: 2 input_dim: 3 input_dim: 29 input_dim: 34\n'
_SOFTMAX = _layer("Softmax", "prob", "logits")

NETWORKS: dict[str, tuple[str, dict[str, list[tuple[int, ...]]]]] = {
    "alexnet": (
        _convolution("conv1", "data", "num_output: 8 kernel_size: 5 stride: 2") + _relu("conv1")
        + _layer("LRN", "norm1", "conv1", "", _LRN) + _pool("pool1", "norm1", "pool: MAX kernel_size: 3 stride: 2")
        + _convolution("conv2", "pool1", "num_output: 6 kernel_size: 3 pad: 1 group: 2") + _relu("conv2")
        + _pool("pool2", "conv2", "pool: MAX kernel_size: 2 stride: 2")
        + _inner_product("fc6", "pool2", 12) + _relu("fc6") + _layer("Dropout", "drop6", "fc6", "fc6")
        + _inner_product("logits", "fc6", 7) + _SOFTMAX,
        {"conv1": [(8, 3, 5, 5), (8,)], "conv2": [(6, 4, 3, 3), (6,)], "fc6": [(12, 72), (12,)],
         "logits": [(7, 12), (7,)]},
    ),
    "googlenet": (
        _convolution("conv1", "data", "num_output: 8 kernel_size: 3 stride: 2 pad: 1") + _relu("conv1")
        + _pool("pool1", "conv1", "pool: MAX kernel_size: 3 stride: 2") + _layer("LRN", "norm1", "pool1", "", _LRN)
        + _convolution("a", "norm1", "num_output: 4 kernel_size: 1") + _relu("a")
        + _convolution("b", "norm1", "num_output: 3 kernel_h: 3 kernel_w: 1 pad_h: 1 pad_w: 0")
        + _pool("c_pool", "norm1", "pool: MAX kernel_size: 3 stride: 1 pad: 1")
        + _convolution("c", "c_pool", "num_output: 5 kernel_size: 3 pad: 2 dilation: 2") + _relu("c")
        + _layer("Concat", "inception", "a b c")
        + _pool("pool2", "inception", "pool: AVE kernel_size: 3 stride: 2 pad: 1")
        + _pool("pool3", "pool2", "pool: AVE kernel_size: 4 stride: 1")
        + _inner_product("logits", "pool3", 7) + _SOFTMAX,
        {"conv1": [(8, 3, 3, 3), (8,)], "a": [(4, 8, 1, 1), (4,)], "b": [(3, 8, 3, 1), (3,)],
         "c": [(5, 8, 3, 3), (5,)], "logits": [(7, 24), (7,)]},
    ),
    "resnet": (
        _normalised("conv1", "data", "num_output: 6 kernel_size: 3 stride: 2 pad: 1")
        + _relu("conv1", "relu_param { negative_slope: 0.1 }")
        + _normalised("branch1", "conv1", "num_output: 6 kernel_size: 1")
        + _normalised("branch2", "conv1", "num_output: 6 kernel_size: 3 pad: 1") + _relu("branch2")
        + _layer("Eltwise", "sum", "branch1 branch2") + _relu("sum")
        + _layer("Eltwise", "most", "sum branch1", "", "eltwise_param { operation: MAX }")
        + _layer("Eltwise", "difference", "most conv1", "", "eltwise_param { operation: SUM coeff: 1 coeff: -0.5 }")
        + _layer("Eltwise", "product", "difference branch2", "", "eltwise_param { operation: PROD }")
        + _convolution("logits_map", "product", "num_output: 7 kernel_size: 1 pad: 1")
        + _pool("logits", "logits_map", "pool: AVE global_pooling: true") + _SOFTMAX,
        {"conv1": [(6, 3, 3, 3)], "branch1": [(6, 6, 1, 1)], "branch2": [(6, 6, 3, 3)],
         "logits_map": [(7, 6, 1, 1), (7,)]}
        | {f"bn_{name}": [(6,), (6,), (1,)] for name in ("conv1", "branch1", "branch2")}
        | {f"scale_{name}": [(6,), (6,)] for name in ("conv1", "branch1", "branch2")},
    ),
}  # fmt: skip


def write_network(name: str, folder: Path) -> CaffeFiles:
    """Write prototxt and caffemodel of a network into `folder`."""
    text, shapes = NETWORKS[name]
    random = np.random.RandomState(sorted(NETWORKS).index(name))
    net = text_format.Parse(text, NetParameter())
    for layer in net.layer:
        for index, shape in enumerate(shapes.get(layer.name, ())):
            positive = layer.type == "BatchNorm" and index > 0
            values = (
                random.uniform(0.5, 1.5, shape) if positive else random.normal(0, np.prod(shape[1:]) ** -0.5, shape)
            )
            blob = layer.blobs.add(data=values.astype("<f4").tobytes())
            blob.shape.dim.extend(shape)
    files = CaffeFiles(
        name,
        folder / f"{name}.prototxt",
        folder / f"{name}.caffemodel",
        random.normal(size=(2, 3, HEIGHT, WIDTH)).astype(np.float32),
    )
    files.prototxt.write_text(_INPUT + text)
    files.weights.write_bytes(net.SerializeToString())
    return files


@pytest.fixture(params=sorted(NETWORKS))
def caffe_files(request: pytest.FixtureRequest, tmp_path: Path) -> CaffeFiles:
    return write_network(request.param, tmp_path)
