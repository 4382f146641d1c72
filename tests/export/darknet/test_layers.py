from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from export.darknet.cfg import Option, Section
from export.darknet.layers import Convolutional, MaxPool, Route, Shape, Shortcut, Upsample
from export.darknet.yolo import Yolo
from zoo.errors import ExportError


def section(kind: str, **options: object) -> Section:
    return Section(Path("net.cfg"), 7, kind, 3, {key: Option(str(value), 8) for key, value in options.items()})


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 6), st.integers(1, 4), st.data())
def test_max_pool_is_darknets(height, width, size, stride, data):
    padding = data.draw(st.none() | st.integers(0, size - 1))
    options = {} if padding is None else {"padding": padding}
    padding = size - 1 if padding is None else padding
    rows, columns = ((side + padding - size) // stride + 1 for side in (height, width))
    assume(min(rows, columns) > 0)
    layer = MaxPool(section("maxpool", size=size, stride=stride, **options), [Shape(2, height, width)])
    assert layer.shape == Shape(2, rows, columns)

    x = torch.randn(3, 2, height, width)
    expected = np.full((3, 2, rows, columns), -np.inf, np.float32)
    for i in range(rows):  # maxpool_layer.c, forward_maxpool_layer
        for j in range(columns):
            top, left = i * stride - padding // 2, j * stride - padding // 2
            window = x[:, :, max(top, 0) : top + size, max(left, 0) : left + size]
            expected[:, :, i, j] = window.amax((2, 3))
    np.testing.assert_array_equal(layer(x), expected)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("leaky", lambda x: np.where(x > 0, x, 0.1 * x)),
        ("linear", lambda x: x),
        ("logistic", lambda x: 1 / (1 + np.exp(-x))),
        ("mish", lambda x: x * np.tanh(np.log1p(np.exp(x)))),
        ("relu", lambda x: np.maximum(x, 0)),
        ("swish", lambda x: x / (1 + np.exp(-x))),
    ],
)
def test_activations(name, function):
    x = np.linspace(-12, 12, 49, dtype=np.float32).reshape(1, 1, 7, 7)
    given = Shape(1, 7, 7)
    layer = Shortcut(section("shortcut", activation=name), [given])
    assert_allclose(layer(torch.from_numpy(x)), function(x.astype(np.float64)), rtol=1e-5, atol=1e-6)


def test_route_takes_its_group_of_each_layer():
    a, b = torch.arange(4.0).view(1, 4, 1, 1), torch.arange(10.0, 16.0).view(1, 6, 1, 1)
    layer = Route(section("route", layers="-1,-2", groups=2, group_id=1), [Shape(4, 1, 1), Shape(6, 1, 1)])
    assert layer.shape == Shape(5, 1, 1)
    assert layer(a, b).flatten().tolist() == [2, 3, 13, 14, 15]


def test_upsample_repeats():
    layer = Upsample(section("upsample", stride=3), [Shape(1, 2, 2)])
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(1, 1, 2, 2)
    assert layer.shape == Shape(1, 6, 6)
    np.testing.assert_array_equal(layer(x)[0, 0], np.kron(x[0, 0], np.ones((3, 3))))


@pytest.mark.parametrize("new_coords", [0, 1])
@pytest.mark.parametrize("scale_x_y", [1.0, 1.2])
def test_yolo_decodes_as_the_papers_say(new_coords, scale_x_y):
    classes, mask, anchors = 3, (2, 0), [(10, 13), (16, 30), (33, 23)]
    flat = ",".join(f"{w},{h}" for w, h in anchors)
    options = {"mask": "2,0", "anchors": flat, "num": 3, "classes": classes, "scale_x_y": scale_x_y}
    rows, columns, image = 3, 5, Shape(3, 96, 160)
    layer = Yolo(section("yolo", new_coords=new_coords, **options), Shape(16, rows, columns), image)
    x = np.random.default_rng(1).normal(size=(2, 16, rows, columns)).astype(np.float32)
    boxes, scores = (output.numpy() for output in layer(torch.from_numpy(x)))

    def activate(t):
        return t if new_coords else 1 / (1 + np.exp(-t))

    number = 0
    for row in range(rows):
        for column in range(columns):
            for k, which in enumerate(mask):
                for n in range(2):
                    t = x[n, 8 * k : 8 * k + 8, row, column].astype(np.float64)
                    cx = (activate(t[0]) * scale_x_y - (scale_x_y - 1) / 2 + column) * 160 / columns
                    cy = (activate(t[1]) * scale_x_y - (scale_x_y - 1) / 2 + row) * 96 / rows
                    w, h = (2 * t[2:4]) ** 2 * anchors[which] if new_coords else np.exp(t[2:4]) * anchors[which]
                    box = [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]
                    assert_allclose(boxes[n, number], box, rtol=1e-4, atol=1e-4)
                    assert_allclose(scores[n, number], activate(t[4]) * activate(t[5:]), rtol=1e-5, atol=1e-6)
                number += 1
    assert boxes.shape == (2, number, 4)
    assert scores.shape == (2, number, classes)


SMALL, LARGE = Shape(8, 4, 4), Shape(8, 8, 8)
YOLO = {"anchors": "1,2,3,4", "num": 2, "classes": 3}


@pytest.mark.parametrize(
    ("layer", "options", "inputs", "message"),
    [
        (Convolutional, {"activation": "gelu"}, [SMALL], "line 8: .* `activation` is 'gelu'; supported are leaky, "),
        (Convolutional, {"filters": 8, "groups": 3}, [SMALL], "`groups` is 3, but must divide its 8 channels"),
        (Convolutional, {"size": 0}, [SMALL], "`size` is 0, but must be at least 1"),
        (MaxPool, {"stride": -1}, [SMALL], "`stride` is -1, but must be at least 1"),
        (Route, {"layers": "-1,-2"}, [SMALL, LARGE], "line 8: .* joins .* 8 x 4 x 4, 8 x 8 x 8"),
        (Route, {"layers": "-1", "groups": 3}, [SMALL], "`groups` is 3, but must divide the channels of 8 x 4 x 4"),
        (Route, {"groups": 2, "group_id": 2}, [SMALL], "`group_id` is 2, but must be under `groups`, 2"),
        (Shortcut, {"from": -3}, [SMALL, LARGE], "adds layers of different shape: 8 x 4 x 4, 8 x 8 x 8"),
        (Yolo, YOLO, [SMALL, LARGE], r"reads 8 channels, but its 2 anchors x \(5 \+ 3 classes\) need 16"),
        (Yolo, {**YOLO, "mask": "1,2"}, [SMALL, LARGE], "line 8: .* `mask` is '1,2', but `num`"),
        (Yolo, {**YOLO, "num": 3}, [SMALL, LARGE], "`anchors` has 4 numbers, but `num=3` needs 6"),
        (Yolo, {"classes": 3}, [SMALL, LARGE], "line 7: .* has no `anchors`"),
    ],
)
def test_refused(layer, options, inputs, message):
    place = section(layer.__name__.lower(), **options)
    with pytest.raises(ExportError, match=message):
        layer(place, *inputs) if layer is Yolo else layer(place, inputs)
