"""What a file is that was taken for another, and what its owner is told."""

import onnx
import pytest
import torch
from torch import nn

from export.importer.adding import name_of, propose
from export.importer.options import ImportOptions
from export.kinds import advice, kind_of
from export.onnx_file.external import load
from zoo.errors import CardError, ExportError

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(
    ("content", "kind", "told"),
    [
        (b"", "empty", "copy it, or export it, again"),
        (LFS, "lfs", "run `git lfs pull`"),
        (b"\n<!DOCTYPE html><html>Sign in", "html", "download the file itself"),
        (b"\x89HDF\r\n\x1a\n", "keras", "python -m tf2onnx.convert --keras"),
        (b"\x1c\0\0\0TFL3", "tflite", "python -m tf2onnx.convert --tflite"),
        (b'{"base_code":{"magic":"pir","version":1},', "paddle3", "paddle2onnx --model_dir"),
        (b'<?xml version="1.0"?>\n<net name="x" version="11">', "openvino", "It is OpenVINO's: add the ONNX file"),
        (b"7767517\n75 83\nInput", "ncnn", "It is ncnn's: add the ONNX file"),
        (b"ftrt\0\0", "tensorrt", "It is a TensorRT engine"),
        (b"PK\x03\x04 cut off", "", ""),
        (b"\x08\x08\x12", "", ""),
    ],
)
def test_kinds_by_their_first_bytes(tmp_path, content, kind, told):
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    assert kind_of(path) == kind
    assert told in advice(path)
    with pytest.raises(ExportError, match=r"net\.onnx: not an ONNX file that can be run: ") as caught:
        load(path)
    assert told in str(caught.value)


def test_a_missing_file_is_of_no_kind(tmp_path):
    assert advice(tmp_path / "net.onnx") == ""


@pytest.fixture
def asked(tmp_path):
    """Propose the card of a file, with nothing stated."""
    return lambda file: propose(file, ImportOptions("net"), tmp_path, family=None, architecture=None, cfg=None)


def test_networks_of_torch_are_told_apart(tmp_path, asked):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "net.PTH")
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "net.ckpt")
    torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(tmp_path / "net.pt")
    (tmp_path / "net.bin").write_bytes(LFS)
    for name, message in {
        "net.PTH": "a checkpoint holds weights, but not the network: say --architecture",
        "net.ckpt": "not an ONNX file that can be run: It is a checkpoint of torch: say --architecture",
        "net.pt": r"It is TorchScript.*'net\.pth'.*add them with --architecture",
        "net.bin": "run `git lfs pull`",
        "net.pdmodel": r"Paddle's files need a card, .*picodet_s_416\.toml has it",
        "net.WEIGHTS": r"Darknet's weights need their cfg: --cfg net\.cfg",
    }.items():
        with pytest.raises(ExportError, match=message):
            asked(tmp_path / name)


def test_a_file_without_a_name_for_a_model(tmp_path):
    assert name_of(tmp_path / "My Net (1).onnx") == "my_net_1"
    with pytest.raises(CardError, match=r"no name for the model .* such as --name my_model"):
        name_of(tmp_path / "\u6a21\u578b.onnx")


def test_a_message_without_a_version_is_no_onnx_file(tmp_path):
    onnx.save_model(onnx.ModelProto(producer_name="x"), tmp_path / "net.onnx")
    with pytest.raises(ExportError, match="not an ONNX file that can be run: it has no version"):
        load(tmp_path / "net.onnx")
