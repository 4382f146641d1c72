"""Small networks with every kind of section and the wiring of their big namesakes, and weights in Darknet's format.

The random numbers are numpy's legacy generator's, whose stream is frozen: `reference.npz` holds what Darknet itself
answered to exactly these files (see `record_reference.py`).
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from export.darknet.cfg import read_cfg
from export.darknet.layers import Convolutional
from export.darknet.network import DarknetNetwork

SIDE = 64
CLASSES = 2
ANCHORS = "4,6, 7,10, 12,9, 16,20, 22,15, 30,30, 40,28, 36,52, 60,58"


class DarknetFiles(NamedTuple):
    name: str
    cfg: Path
    weights: Path
    image: np.ndarray  # float32 [3, 64, 64]
    boxes: np.ndarray  # Darknet's own answer to it, float32 [A, 4], xyxy in input pixels
    scores: np.ndarray  # likewise, float32 [A, 2]


def _section(kind: str, **options: object) -> str:
    return "\n".join([f"[{kind}]", *(f"{key}={value}" for key, value in options.items()), ""])


def _conv(filters: int, size: int = 3, stride: int = 1, act: str = "leaky", **more: object) -> str:
    return _section(
        "convolutional", batch_normalize=1, filters=filters, size=size, stride=stride, pad=1, activation=act, **more
    )


def _head(mask: str, act: str = "linear", **more: object) -> str:
    filters = (mask.count(",") + 1) * (5 + CLASSES)
    options = {"mask": mask, "anchors": ANCHORS, "num": 9, "classes": CLASSES, "jitter": 0.3, **more}
    return _section("convolutional", size=1, stride=1, pad=1, filters=filters, activation=act) + _section(
        "yolo", **options
    )


def _route(*layers: int, **more: object) -> str:
    return _section("route", layers=", ".join(map(str, layers)), **more)


def _pool(size: int, stride: int) -> str:
    return _section("maxpool", size=size, stride=stride)


_ADD = _section("shortcut", **{"from": -3, "activation": "linear"})
_UP = _section("upsample", stride=2)


def _csp(act: str) -> str:
    """A cross-stage partial block on 8 channels: 9 layers, the last of 8 channels."""
    return (
        _conv(8, 1, act=act) + _route(-2) + _conv(8, 1, act=act)
        + _conv(4, 1, act=act) + _conv(8, 3, act=act) + _ADD + _conv(8, 1, act=act)
        + _route(-1, -7) + _conv(8, 1, act=act)
    )  # fmt: skip


def _residual(filters: int) -> str:
    return _conv(filters, 3, 2) + _conv(filters // 2, 1) + _conv(filters, 3) + _ADD


def _pan(act: str, head: str, **yolo: object) -> str:
    """Backbone with CSP blocks, SPP, a path up and a path down again, and three heads, finest first."""
    backbone = (
        _conv(4, act=act) + _conv(8, 3, 2, act) + _conv(8, 3, 2, act) + _csp(act)  # 0-11
        + _conv(8, 3, 2, act) + _csp(act)  # 12-21, stride 8
        + _conv(12, 3, 2, act)  # 22, stride 16
        + _conv(16, 3, 2, act)  # 23, stride 32
    )  # fmt: skip
    spp = (
        _conv(8, 1) + _pool(5, 1) + _route(-2) + _pool(9, 1) + _route(-4) + _pool(13, 1) + _route(-1, -3, -5, -6)
    )  # 24-30
    up = (
        _conv(8, 1) + _conv(8, 1) + _UP + _route(22) + _conv(8, 1) + _route(-1, -3) + _conv(12, 3)  # 31-37
        + _conv(8, 1) + _UP + _route(21) + _conv(8, 1) + _route(-1, -3) + _conv(12, 3)  # 38-43
    )  # fmt: skip
    down = (
        _head("0,1,2", head, **yolo)  # 44, 45
        + _route(-3) + _conv(12, 3, 2) + _route(-1, 37) + _conv(12, 3) + _head("3,4,5", head, **yolo)  # 46-51
        + _route(-3) + _conv(8, 3, 2) + _route(-1, 31) + _conv(8, 3) + _head("6,7,8", head, **yolo)
    )  # fmt: skip
    return backbone + spp + up + down


_LAYERS = {
    "yolov3": (
        _conv(8) + _residual(8) + _residual(12) + _residual(16) + _residual(16) + _residual(24)  # 0-20
        + _conv(12, 1) + _conv(16, 3) + _head("6,7,8")  # 21-24
        + _route(-4) + _conv(8, 1) + _UP + _route(-1, 16) + _conv(12, 1) + _conv(16, 3) + _head("3,4,5")  # 25-32
        + _route(-4) + _conv(8, 1) + _UP + _route(-1, 12) + _conv(12, 1) + _conv(16, 3) + _head("0,1,2")
    ),
    "yolov3-tiny": (
        _conv(4) + _pool(2, 2) + _conv(8) + _pool(2, 2) + _conv(8) + _pool(2, 2) + _conv(12) + _pool(2, 2)
        + _conv(16) + _pool(2, 2) + _conv(16) + _pool(2, 1) + _conv(24)  # 8-12
        + _conv(12, 1) + _conv(16) + _head("3,4,5") + _route(-4) + _conv(8, 1) + _UP + _route(-1, 8) + _conv(16)
        + _head("0,1,2")
    ),
    "yolov4": _pan("mish", "linear", scale_x_y=1.1, iou_loss="ciou", nms_kind="greedynms", beta_nms=0.6),
    "yolov4-tiny": (
        _conv(8, 3, 2) + _conv(8, 3, 2) + _conv(8) + _route(-1, groups=2, group_id=1) + _conv(4) + _conv(4)
        + _route(-1, -2) + _conv(8, 1) + _route(-6, -1) + _pool(2, 2)  # 9, stride 8
        + _conv(16) + _route(-1, groups=2, group_id=0) + _conv(8) + _conv(8) + _route(-1, -2) + _conv(16, 1)
        + _route(-6, -1) + _pool(2, 2) + _conv(16) + _pool(2, 2)  # 19, stride 32
        + _conv(12, 1) + _conv(16) + _head("3,4,5", scale_x_y=1.05) + _route(-4) + _conv(8, 1) + _UP + _route(-1, 18)
        + _conv(16) + _head("1,2,3", scale_x_y=1.05)
    ),
    "yolov4-csp": _pan("swish", "logistic", scale_x_y=2.0, new_coords=1, objectness_smooth=1),
    # What the others have not: groups of filters, other activations, two shortcuts at once, pooling with a margin.
    "odd": (
        _conv(8, 3, 2, "relu", groups=1) + _conv(8, 5, 1, "logistic", groups=4) + _conv(8, 1, 1, "linear")
        + _section("shortcut", **{"from": "-2, -3", "activation": "leaky"})
        + _section("conv", filters=6, size=3, padding=1) + _section("max", size=3, stride=2)
        + _route(-1, -1, groups=3, group_id=2) + _pool(3, 2) + _pool(4, 3)
        + _head("4,0")
    ),
}  # fmt: skip
NAMES = tuple(_LAYERS)


def write_network(name: str, folder: Path) -> tuple[Path, Path, np.ndarray]:
    """Write cfg and weights of a network into `folder`; the third is an image, float32 [3, 64, 64]."""
    cfg, weights = folder / f"{name}.cfg", folder / f"{name}.weights"
    net = _section("net", batch=64, width=SIDE, height=SIDE, channels=3, learning_rate=0.001, policy="constant")
    cfg.write_text(net + _LAYERS[name])
    random = np.random.RandomState(NAMES.index(name))
    pieces = []
    for layer in DarknetNetwork(read_cfg(cfg), SIDE, SIDE).layers:
        if isinstance(layer, Convolutional):
            n, *kernel = layer.convolution.weight.shape
            pieces.append(random.normal(0, 0.3, n))  # biases
            if layer.normalisation is not None:
                pieces += [random.uniform(0.5, 1.5, n), random.normal(0, 0.3, n), random.uniform(0.5, 1.5, n)]
            pieces.append(random.normal(0, np.prod(kernel) ** -0.5, n * np.prod(kernel)))
    header = np.array([0, 2, 5], "<i4").tobytes() + np.array([32_013_312], "<i8").tobytes()
    weights.write_bytes(header + np.concatenate(pieces).astype("<f4").tobytes())
    return cfg, weights, random.uniform(size=(3, SIDE, SIDE)).astype(np.float32)


@pytest.fixture(scope="module", params=NAMES)
def darknet_files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> DarknetFiles:
    files = write_network(request.param, tmp_path_factory.mktemp("darknet"))
    with np.load(Path(__file__).with_name("reference.npz")) as reference:
        return DarknetFiles(
            request.param, *files, reference[f"{request.param}/boxes"], reference[f"{request.param}/scores"]
        )
