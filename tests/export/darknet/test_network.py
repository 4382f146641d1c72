import numpy as np
import onnxruntime
import pytest
import torch
from numpy.testing import assert_allclose

from export.darknet.cfg import read_cfg
from export.darknet.layers import Convolutional
from export.darknet.network import DarknetNetwork
from export.darknet.weights import WeightsReader
from export.darknet.yolo import Yolo
from zoo.errors import ExportError

CONV = "[convolutional]\nfilters=14\nsize=1\n"
YOLO = "[yolo]\nanchors=8,9,20,30\nnum=2\nclasses=2\n"


def load(files, height=64, width=64):
    network = DarknetNetwork(read_cfg(files.cfg), height, width)
    network.load_weights(WeightsReader(files.weights))
    return network.eval()


@torch.inference_mode()
def answer(network, images):
    return {name: value.numpy() for name, value in network(torch.from_numpy(images)).items()}


def test_answers_as_darknet_itself(darknet_files):
    outputs = answer(load(darknet_files), darknet_files.image[None])
    assert outputs["boxes"].shape == (1, *darknet_files.boxes.shape)
    assert_allclose(outputs["boxes"][0], darknet_files.boxes, atol=2e-4)
    assert_allclose(outputs["scores"][0], darknet_files.scores, atol=2e-6)


def test_weights_come_back_as_they_were_written(darknet_files):
    network = load(darknet_files)
    written = []
    for layer in network.layers:
        if isinstance(layer, Convolutional):
            conv, norm = layer.convolution, layer.normalisation
            written += [conv.bias] if norm is None else [norm.bias, norm.weight, norm.running_mean, norm.running_var]
            written.append(conv.weight)
    values = np.concatenate([tensor.detach().numpy().ravel() for tensor in written])
    assert values.tobytes() == darknet_files.weights.read_bytes()[20:]


@pytest.mark.parametrize("darknet_files", ["yolov3", "yolov4", "yolov4-tiny"], indirect=True)
def test_another_input_size_than_the_cfgs(darknet_files):
    network = load(darknet_files, 96, 160)
    image = np.zeros((2, 3, 96, 160), np.float32)
    strides = {int(layer.pixels_per_cell[0]) for layer in network.layers if isinstance(layer, Yolo)}
    assert strides == ({16, 32} if "tiny" in darknet_files.name else {8, 16, 32})
    candidates = sum(3 * (96 // stride) * (160 // stride) for stride in strides)
    assert answer(network, image)["boxes"].shape == (2, candidates, 4)


@pytest.mark.parametrize("darknet_files", ["yolov3-tiny", "yolov4"], indirect=True)
def test_exports_with_a_dynamic_batch(darknet_files, tmp_path):
    network = load(darknet_files)
    images = np.random.default_rng(0).uniform(size=(3, 3, 64, 64)).astype(np.float32)
    path = tmp_path / "net.onnx"
    batch = torch.export.Dim("batch", min=1)
    program = torch.onnx.export(
        network,
        (torch.from_numpy(images[:2]),),
        dynamo=True,
        opset_version=20,
        input_names=["images"],
        dynamic_shapes=({0: batch},),
        verbose=False,
    )
    program.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for count in (1, 3):
        boxes, scores = session.run(None, {"images": images[:count]})
        expected = answer(network, images[:count])
        assert_allclose(boxes, expected["boxes"], atol=2e-4)
        assert_allclose(scores, expected["scores"], atol=2e-6)


@pytest.mark.parametrize("darknet_files", ["yolov3-tiny"], indirect=True)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[:-4], r"\(layer 22\) needs 336 floats for its kernel, but only 335 of .* are left"),
        (lambda content: content + bytes(8), r": 2 of the file's .* are left over after \[conv.* \(layer 22\)"),
    ],
)
def test_weights_of_another_length_are_refused(darknet_files, tmp_path, change, message):
    other = tmp_path / "other.weights"
    other.write_bytes(change(darknet_files.weights.read_bytes()))
    network = DarknetNetwork(read_cfg(darknet_files.cfg), 64, 64)
    with pytest.raises(ExportError, match=message):
        network.load_weights(WeightsReader(other))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (CONV, r"\[yolo\] sections with equal `classes`; here: no such section"),
        (CONV + YOLO + "[route]\nlayers=0\n" + YOLO.replace("classes=2", "classes=9\nmask=1"), "`classes`; here: 2, 9"),
        (CONV + YOLO + CONV, r"line 9: \[convolutional\] reads a \[yolo\] layer"),
        (CONV + YOLO + "[route]\nlayers=-1\n", r"line 9: \[route\] reads a \[yolo\] layer"),
        (CONV + "[route]\nlayers=1\n", "line 6: .route. `layers` is '1', but the layers before it are 0 to 0"),
        (CONV + "[route]\nlayers=-2\n", "line 6: .route. `layers` is '-2', but the layers before it are 0 to 0"),
        (CONV + "[route]\n", "line 5: .route. has no `layers`"),
        (CONV + "[shortcut]\nfrom=4\n", "line 6: .shortcut. `from` is '4'"),
        (CONV + CONV.replace("size=1", "size=33") + YOLO, "line 5: .convolutional. turns 14 x 32 x 32 into 14 x 0 x 0"),
    ],
)  # fmt: skip
def test_wiring_that_cannot_be_is_refused(tmp_path, layers, message):
    path = tmp_path / "net.cfg"
    path.write_text("[net]\n" + layers)
    with pytest.raises(ExportError, match=message):
        DarknetNetwork(read_cfg(path), 32, 32)
