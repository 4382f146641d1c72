"""Which layers of a file lead to the answer, in both generations of the format, and what is refused."""

import numpy as np
import pytest
import torch
from google.protobuf import text_format

from export.caffe.net import NetParameter, declared_input, read_net, trained_pixels
from export.families.caffe import rebuild
from zoo.errors import ExportError


def write(path, text):
    path.write_bytes(text_format.Parse(text, NetParameter()).SerializeToString())
    return path


TRAINED = """
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN } }
layer { name: "label_split" type: "Split" bottom: "label" top: "label_0" top: "label_1" }
layer { name: "a" type: "Pooling" bottom: "data" top: "a" }
layer { name: "a_split" type: "Split" bottom: "a" top: "a_0" top: "a_1" }
layer { name: "side" type: "Contrastive" bottom: "a_1" bottom: "label_1" top: "side_loss" }
layer { name: "b" type: "ReLU" bottom: "a_0" top: "a_0" }
layer { name: "c" type: "Crop" bottom: "a_0" top: "a_0" include { phase: TRAIN } }
layer { name: "d" type: "Dropout" bottom: "a_0" top: "a_0" exclude { phase: TRAIN } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "a_0" bottom: "label_0" top: "loss" }
"""
OLD = """
layers { name: "a" type: POOLING bottom: "data" top: "a" }
layers { name: "b" type: RELU bottom: "a" top: "a" }
layers { name: "loss" type: SOFTMAX_LOSS bottom: "a" bottom: "label" }
"""


@pytest.mark.parametrize(
    ("text", "output", "kinds", "ends"),
    [
        (TRAINED, None, ["pooling", "split", "relu", "dropout"], ("data", "a_0")),
        (TRAINED, "a", ["pooling"], ("data", "a")),
        (TRAINED.replace("SoftmaxWithLoss", "Accuracy"), None, ["pooling", "split", "relu", "dropout"],
         ("data", "a_0")),
        (OLD, None, ["pooling", "relu"], ("data", "a")),
        (OLD[: OLD.index("layers { name: \"loss")], None, ["pooling", "relu"], ("data", "a")),
    ],
)  # fmt: skip
def test_only_what_leads_to_the_answer(tmp_path, text, output, kinds, ends):
    net = read_net(write(tmp_path / "net.caffemodel", text), None, output)
    assert [layer.kind for layer in net.layers] == kinds
    assert (net.image, net.answer) == ends


LOGITS = 'layer { type: "Pooling" bottom: "data" top: "fc" }'
PROBABILITIES = LOGITS + 'layer { type: "Softmax" bottom: "fc" top: "prob" }'


@pytest.mark.parametrize(
    ("text", "output"),
    [
        (PROBABILITIES, None),
        (PROBABILITIES, "prob"),
        (PROBABILITIES.replace("prob", "fc"), None),  # in place
        (PROBABILITIES + 'layer { type: "ArgMax" bottom: "prob" top: "best" }', None),
        (PROBABILITIES + 'layer { type: "Accuracy" bottom: "prob" bottom: "label" top: "share" }', None),
        (PROBABILITIES + 'layer { type: "Flatten" bottom: "prob" top: "flat" }', None),
    ],
)
def test_no_softmax_of_a_softmax_is_served(tmp_path, text, output):
    net = read_net(write(tmp_path / "net.caffemodel", text), None, output)
    assert ([layer.kind for layer in net.layers], net.answer) == (["pooling"], "fc")


def old(layer: str) -> str:
    """The one-line form of a layer in the format before 2014."""
    for new, before in (("Convolution", "CONVOLUTION"), ("InnerProduct", "INNER_PRODUCT"), ("Pooling", "POOLING"),
                        ("ReLU", "RELU"), ("Dropout", "DROPOUT"), ("Softmax", "SOFTMAX"), ("Concat", "CONCAT"),
                        ("LRN", "LRN")):  # fmt: skip
        layer = layer.replace(f'type: "{new}"', f"type: {before}")
    return layer.replace("layer {", "layers {")


@pytest.mark.parametrize("caffe_files", ["alexnet", "googlenet"], indirect=True)
def test_the_older_generation_answers_alike(caffe_files, tmp_path):
    new = NetParameter()
    new.ParseFromString(caffe_files.weights.read_bytes())
    before = text_format.Parse(
        old(caffe_files.prototxt.read_text()), NetParameter(), allow_unknown_field=True
    )  # the layers
    for layer, source in zip(before.layers, new.layer, strict=True):
        for blob in source.blobs:
            layer.blobs.add(data=blob.data)  # without a shape: the older generation had four numbers instead
    path = tmp_path / "old.caffemodel"
    path.write_bytes(before.SerializeToString())
    x = torch.from_numpy(caffe_files.images)
    with torch.no_grad():
        expected, got = (rebuild(read_net(p, None, None))(x) for p in (caffe_files.weights, path))
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("text", "output", "message"),
    [
        ("name: 'empty'", None, "not a Caffe model: it has no layers.*upgrade_net_proto_binary"),
        (OLD, "z", "no layer writes 'z': correct the option `output`"),
        ("layer { type: 'Concat' bottom: 'x' bottom: 'y' top: 'z' }", None,
         r"computed from \['x', 'y'\], expected one"),
        ("layer { name: 'c' type: 'Bias' top: 'z' blobs { shape { dim: 3 } data: '1234' } }", None,
         r"layer 0, Bias 'c': a blob of \(3,\) has 1 floats: the file is damaged"),
        ("layer { name: 'c' type: 'Bias' top: 'z' blobs { data: '123' } }", None, "has 0.75 floats: .* damaged"),
        (r"layer { name: 'c' type: 'Bias' top: 'z' blobs { data: '\000\000\300\177' } }", None,
         r"layer 0, Bias 'c': its weights are not all finite"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(tmp_path, text, output, message):
    with pytest.raises(ExportError, match=rf"net\.caffemodel: .*{message}|net\.caffemodel: {message}"):
        read_net(write(tmp_path / "net.caffemodel", text), None, output)


@pytest.mark.parametrize("name", ["weights", "prototxt"])
@pytest.mark.parametrize("content", [b"PK\x03\x04 an archive", b"\x89PNG", b"\xff" * 40, None])
def test_other_files_are_refused(tmp_path, name, content):
    files = {"weights": write(tmp_path / "net.caffemodel", OLD), "prototxt": tmp_path / "net.prototxt"}
    files["prototxt"].write_text(OLD)
    files[name].unlink()
    if content is not None:
        files[name].write_bytes(content)
    with pytest.raises(ExportError, match=f"{files[name].name}: (not a Caffe|No such file)"):
        read_net(files["weights"], files["prototxt"], None)


@pytest.mark.parametrize(
    ("text", "declared"),
    [
        ('input: "data" input_dim: 10 input_dim: 3 input_dim: 224 input_dim: 320', (3, 224, 320)),
        ('input: "data" input_shape { dim: 1 dim: 1 dim: 28 dim: 29 }', (1, 28, 29)),
        ('input: "mask" input: "data" input_shape { dim: 1 } input_shape { dim: 1 dim: 3 dim: 8 dim: 9 }', (3, 8, 9)),
        ('layer { type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 9 } } }', (3, 8, 9)),
        ('input: "data"', None),
        ('input: "data" input_dim: 1 input_dim: 3', None),
        ('input: "other" input_dim: 1 input_dim: 3 input_dim: 4 input_dim: 5', None),
        ('input: "data" input_dim: 1 input_dim: 3 input_dim: 0 input_dim: 5', None),
        ('layer { type: "Data" top: "data" transform_param { crop_size: 227 } }', None),
    ],
)
def test_the_input_that_a_deploy_file_declares(tmp_path, text, declared):
    for encoding in ("utf-8", "utf-8-sig"):
        (tmp_path / "deploy.prototxt").write_text(text, encoding)
        assert declared_input(tmp_path / "deploy.prototxt", "data") == declared


@pytest.mark.parametrize(
    ("text", "pixels"),
    [
        (TRAINED, None),
        (OLD, None),
        ('layer { type: "Data" transform_param { mean_value: 104 mean_value: 117 mean_value: 123 } }',
         ((104.0, 117.0, 123.0), 1.0)),
        ('layers { type: DATA transform_param { mean_value: 128 scale: 0.5 } }', ((128.0,), 0.5)),
        ('layer { type: "Data" transform_param { scale: 0.0078125 } }', ((0.0,), 0.0078125)),
        ('layer { type: "Data" transform_param { mean_value: 1 mean_value: 2 } }', None),
        ('layer { type: "Data" transform_param { scale: 0 } }', None),
        ('layer { type: "Data" transform_param { scale: 0.5 mean_file: "mean.binaryproto" } }', None),
    ],
)  # fmt: skip
def test_the_pixels_that_training_left_in_the_file(tmp_path, text, pixels):
    assert trained_pixels(write(tmp_path / "net.caffemodel", text)) == pixels
