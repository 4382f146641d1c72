"""Caffe's layers in torch: whole networks against another reader's answers, pooling against its definition."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from google.protobuf import text_format
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from export.caffe.layers import LAYERS
from export.caffe.net import Layer, NetParameter, read_net
from export.families.caffe import build, rebuild
from export.reference import Reference
from tests.export.any_batch import convert
from zoo.card import Recipe
from zoo.errors import ExportError
from zoo.model_card import Normalise

HEIGHT, WIDTH = 29, 34  # what the networks of `conftest.py` take


@pytest.mark.parametrize("with_prototxt", [False, True])
def test_answers_as_opencv_does(caffe_files, with_prototxt):
    net = read_net(caffe_files.weights, caffe_files.prototxt if with_prototxt else None, None)
    with torch.no_grad():
        logits = rebuild(net)(torch.from_numpy(caffe_files.images)).numpy()
    with np.load(Path(__file__).with_name("reference.npz")) as reference:
        expected = reference[caffe_files.name]
    assert expected.std() > 0.1
    np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())


def test_converts_with_a_dynamic_batch(caffe_files, make_card):
    """LRN, and averages over windows that reach over the edge, in ONNX Runtime too."""
    card = make_card("classify", recipe=Recipe(HEIGHT, WIDTH, "stretch"), normalise=Normalise(std=(99.0, 99.0, 99.0)))
    network = build(card, {"weights": caffe_files.weights})
    reference = Reference(card, network, 7)
    images = np.random.default_rng(0).integers(0, 256, (3, HEIGHT, WIDTH, 3), np.uint8)
    model = convert(card, network, reference.head, reference.raw(images[:2]))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in (images[:1], images):
        expected = reference(batch)["probabilities"]
        assert expected.std() > 0.01
        np.testing.assert_allclose(session.run(["probabilities"], {"images": batch})[0], expected, atol=1e-5)


def layer(kind: str, settings: str, *shapes: tuple[int, ...]) -> Layer:
    net = text_format.Parse(f'layer {{ type: "{kind}" bottom: "x" top: "y" {settings} }}', NetParameter())
    blobs = tuple(np.ones(shape, np.float32) for shape in shapes)
    return Layer(kind.lower(), ("x",), ("y",), blobs, net.layer[0], "net.caffemodel: layer 0")


@settings(max_examples=60)
@given(st.integers(1, 12), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2), st.sampled_from(["MAX", "AVE"]))
def test_pooling_as_caffe_defines_it(side, kernel, stride, pad, method):
    assume(2 * pad <= kernel <= side + 2 * pad and stride <= kernel)
    x = np.random.default_rng(side).normal(size=side).astype(np.float32)
    outputs = -(-(side + 2 * pad - kernel) // stride) + 1
    if pad and (outputs - 1) * stride >= side + pad:
        outputs -= 1
    expected = []
    for start in (np.arange(outputs) * stride - pad).tolist():
        end = min(start + kernel, side + pad)
        window = x[max(start, 0) : min(end, side)]
        expected.append(window.max() if method == "MAX" else window.sum() / (end - start))
    module = LAYERS["pooling"](
        layer(
            "Pooling",
            f"pooling_param {{ pool: {method} kernel_h: {kernel} kernel_w: 1 stride_h: {stride} pad_h: {pad} }}",
        )
    )
    np.testing.assert_allclose(module(torch.from_numpy(x).view(1, 1, -1, 1)).flatten(), expected, atol=1e-6)


def test_batch_normalisation_without_any_average_is_zero_over_epsilon():
    mean, variance, total = (np.full(shape, value, np.float32) for shape, value in ((3, 2), (3, 8), (1, 2)))
    known = layer("BatchNorm", "batch_norm_param { eps: 0 }")
    x = torch.full((1, 3, 2, 2), 5.0)
    assert LAYERS["batchnorm"](known._replace(blobs=(mean, variance, total)))(x).unique().tolist() == [2.0]
    none = layer("BatchNorm", "batch_norm_param { eps: 0.25 }")._replace(blobs=(mean, variance, total * 0))
    assert LAYERS["batchnorm"](none)(x).unique().tolist() == [10.0]


@pytest.mark.parametrize(
    ("kind", "settings", "shapes", "message"),
    [
        ("Convolution", "convolution_param { num_output: 4 kernel_size: 3 }", [(4, 2, 3, 3)],
         r"weights have the shapes \[\(4, 2, 3, 3\)\], expected \[\(4, -1, 3, 3\), \(4,\)\]"),
        ("Convolution", "convolution_param { num_output: 4 kernel_size: 5 bias_term: false }", [(4, 2, 3, 3)],
         "expected"),
        ("Convolution", "convolution_param { num_output: 4 kernel_size: 3 axis: 2 }", [], "over other axes"),
        ("InnerProduct", "inner_product_param { num_output: 4 transpose: true }", [], "transposed, is not supported"),
        ("Pooling", "pooling_param { pool: STOCHASTIC kernel_size: 2 }", [], "stochastic pooling is not supported"),
        ("Pooling", "pooling_param { kernel_size: 2 pad: 2 }", [], "padding by more than half a window"),
        ("LRN", "lrn_param { norm_region: WITHIN_CHANNEL }", [], "LRN within channels"),
        ("Concat", "concat_param { axis: 2 }", [], "concatenation of anything but channels"),
        ("Eltwise", "eltwise_param { coeff: 1 coeff: 2 }", [], "a sum with 2 coefficients"),
        ("Scale", "scale_param { num_axes: 2 }", [(3,)], "scaling of anything but channels"),
    ],
)  # fmt: skip
def test_settings_that_are_not_known_are_refused(kind, settings, shapes, message):
    with pytest.raises(ExportError, match=rf"net\.caffemodel: layer 0: .*{message}"):
        LAYERS[kind.lower()](layer(kind, settings, *shapes))
