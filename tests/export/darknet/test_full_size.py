"""The networks in full size: each takes weights of exactly the published length, and answers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from export.families.darknet import build
from zoo.card import Recipe
from zoo.model_card import Source
from zoo.sources import fetch

ANCHORS = "12, 16, 19, 36, 40, 28, 36, 75, 76, 55, 72, 146, 142, 110, 192, 243, 459, 401"
MISH, LEAKY = "mish", "leaky"


def published(member: str, sha256: str) -> str:
    return fetch(Source(package="torch_yolo3==0.1.1", member=member, sha256=sha256), progress=False).read_text()


def convolution(filters: int, size: int, stride: int = 1, activation: str = LEAKY) -> str:
    normalised = int(activation != "linear")
    settings = f"batch_normalize={normalised}\nfilters={filters}\nsize={size}\nstride={stride}\npad=1"
    return f"[convolutional]\n{settings}\nactivation={activation}\n"


def route(*layers: int) -> str:
    return f"[route]\nlayers={', '.join(map(str, layers))}\n"


def stage(filters: int, blocks: int, *, first: bool = False) -> str:
    """A stage of CSPDarknet53: residual blocks on one half of the channels, or, the first time, on a copy of all."""
    half = filters if first else filters // 2
    block = convolution(filters // 2, 1, 1, MISH) + convolution(half, 3, 1, MISH) + "[shortcut]\nfrom=-3\n"
    return (
        convolution(filters, 3, 2, MISH) + convolution(half, 1, 1, MISH) + route(-2) + convolution(half, 1, 1, MISH)
        + block * blocks + convolution(half, 1, 1, MISH) + route(-1, -3 * blocks - 4) + convolution(filters, 1, 1, MISH)
    )  # fmt: skip


def yolov4() -> str:
    """YOLOv4's cfg, from its paper: Bochkovskiy et al. (2020), CSPDarknet53 with SPP and a path aggregation network."""

    def narrow(filters: int) -> str:
        return convolution(filters, 1) + convolution(filters * 2, 3)

    def up(filters: int, skip: int) -> str:
        joined = (
            convolution(filters, 1) + "[upsample]\nstride=2\n" + route(skip) + convolution(filters, 1) + route(-1, -3)
        )
        return joined + narrow(filters) * 2 + convolution(filters, 1)

    def head(filters: int, mask: str) -> str:
        last = convolution(filters * 2, 3) + convolution(255, 1, 1, "linear")
        return last + f"[yolo]\nmask={mask}\nanchors={ANCHORS}\nclasses=80\nnum=9\nscale_x_y=1.1\n"

    def down(filters: int, skip: int, mask: str) -> str:
        joined = route(-4) + convolution(filters, 3, 2) + route(-1, skip)
        return joined + narrow(filters) * 2 + convolution(filters, 1) + head(filters, mask)

    def pool(size: int) -> str:
        return f"[maxpool]\nstride=1\nsize={size}\n"

    backbone = stage(64, 1, first=True) + stage(128, 2) + stage(256, 8) + stage(512, 8) + stage(1024, 4)
    spp = pool(5) + route(-2) + pool(9) + route(-4) + pool(13) + route(-1, -3, -5, -6)
    middle = narrow(512) + convolution(512, 1) + spp + narrow(512) + convolution(512, 1)
    ends = head(128, "0,1,2") + down(256, -16, "3,4,5") + down(512, -37, "6,7,8")
    return (
        "[net]\nwidth=608\nheight=608\nchannels=3\n" + convolution(32, 3, 1, MISH) + backbone + middle
        + up(256, 85) + up(128, 54) + ends
    )  # fmt: skip


NETWORKS = {
    "yolov3-tiny": lambda: published(
        "config/yolov3-tiny.cfg", "b42848458bc23a2d09f10d3827a2e4993d681a626261b7d51fd8acf43ed97763"
    ),
    "yolov3": lambda: published(
        "config/yolov3.cfg", "c8a95fe76113f0bb9e1477ec60d2c85cea099c26cb3a1c886de2a50dddf065e1"
    ),
    "yolov4": yolov4,
}


def write_weights(path: Path, size: int) -> Path:
    """Write a file of so many bytes: Darknet's header, then random floats, small enough for a hundred layers."""
    block = np.random.default_rng(0).uniform(0, 1e-3, 1 << 20).astype("<f4")
    with path.open("wb") as file:
        file.write(np.array([0, 2, 5, 0, 0], "<i4").tobytes())
        for start in range(20, size, block.nbytes):
            file.write(block.tobytes()[: size - start])
    return path


# Sizes of the published .weights files: a float too few or too many is refused (see `test_network.py`).
@pytest.mark.parametrize(
    ("name", "size", "strides"),
    [("yolov3-tiny", 35_434_956, (16, 32)), ("yolov3", 248_007_048, (8, 16, 32)), ("yolov4", 257_717_640, (8, 16, 32))],
)
def test_weights_of_the_published_size_fit(make_card, tmp_path, name, size, strides):
    card = make_card("detect", family="darknet", recipe=Recipe(96, 160, "letterbox"))
    files = {"cfg": tmp_path / f"{name}.cfg", "weights": write_weights(tmp_path / f"{name}.weights", size)}
    files["cfg"].write_text(NETWORKS[name]())
    try:
        network = build(card, files).module
    finally:
        files["weights"].unlink()  # a quarter of a gigabyte
    with torch.inference_mode():
        answers = network(torch.rand(1, 3, 96, 160))
    candidates = sum(3 * (96 // stride) * (160 // stride) for stride in strides)
    assert (answers["boxes"].shape, answers["scores"].shape) == ((1, candidates, 4), (1, candidates, 80))
    assert all(value.isfinite().all() for value in answers.values())
