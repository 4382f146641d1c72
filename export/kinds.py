"""What a file is that cannot be read as what it was taken for, by its first bytes, and what to do with it.

Readers of users' files call it for their errors: `export.checkpoint`, `export.onnx_file`, `export.importer`.
"""

import zipfile
from pathlib import Path
from typing import Literal

Kind = Literal[
    "", "empty", "lfs", "html", "torch", "torchscript", "keras", "tflite", "paddle3", "openvino", "ncnn", "tensorrt"
]
_LENGTH = 256


def kind_of(path: Path) -> Kind:
    """Return what a regular file is; "" where that is none of the known kinds.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        begins = file.read(_LENGTH)
    if not begins:
        return "empty"
    if begins.startswith(b"version https://git-lfs"):
        return "lfs"
    if begins.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "html"
    if begins.startswith(b"\x89HDF\r\n"):
        return "keras"
    if begins[4:8] == b"TFL3":
        return "tflite"
    if begins.startswith(b"ftrt"):
        return "tensorrt"
    if begins.startswith(b"7767517\n"):
        return "ncnn"
    if begins.lstrip().startswith(b"<") and b"<net " in begins:
        return "openvino"
    if begins.lstrip().startswith(b"{") and b'"pir"' in begins:
        return "paddle3"
    return _archive(path) if begins.startswith(b"PK\x03\x04") else ""


def _archive(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()}
    except (OSError, ValueError, zipfile.BadZipFile):  # cut off
        return ""
    if "constants.pkl" in names:
        return "torchscript"
    return "torch" if "data.pkl" in names else ""


def advice(path: Path) -> str:
    """Return a sentence about a file that could not be read: what it is, and what to do; "" where that is not known."""
    onnx = path.with_suffix(".onnx").name

    def converted(option: str) -> str:
        command = f"python -m tf2onnx.convert --{option} {path} --output {onnx}"
        return f"`{command}` makes an ONNX file of it (pip install tf2onnx)"

    def made_from_another(what: str) -> str:
        return f"It is {what}: add the ONNX file that it was made from, or export the network as ONNX"

    paddle = f"--model_dir {path.parent} --model_filename {path.name} --params_filename {path.stem}.pdiparams"
    sentences: dict[Kind, str] = {
        "empty": "It is empty: copy it, or export it, again",
        "lfs": "It is Git LFS's pointer to the file: run `git lfs pull` where it was cloned, or download the file",
        "html": "It is a web page: download the file itself",
        "torch": "It is a checkpoint of torch: say --architecture, such as resnet50 (`zooserve list torchvision` shows "
        "all), or --family ultralytics",
        "torchscript": 'It is TorchScript, whose code is not run here. Save its weights, `python -c "import torch; '
        f"torch.save(torch.jit.load('{path}', map_location='cpu').state_dict(), '{path.with_suffix('.pth').name}')\"`, "
        "and add them with --architecture; or export the network as ONNX where it was trained",
        "keras": f"It is an HDF5 file, such as Keras writes: {converted('keras')}",
        "tflite": f"It is a TensorFlow Lite file: {converted('tflite')}",
        "paddle3": f"It is a program of Paddle 3: `paddle2onnx {paddle} --save_file {onnx}` makes an ONNX file of it "
        "(pip install paddle2onnx)",
        "openvino": made_from_another("OpenVINO's"),
        "ncnn": made_from_another("ncnn's"),
        "tensorrt": made_from_another("a TensorRT engine, which runs on the kind of GPU that it was built on"),
    }
    try:
        return sentences.get(kind_of(path), "")
    except OSError:
        return ""
