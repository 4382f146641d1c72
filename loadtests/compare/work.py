"""The work that every server of the comparison does: one JPEG -> decode, resize, mobilenet_v2, top 5.

Imported by the bare loops and by each peer's server, in that peer's own environment: Pillow, simplejpeg, OpenCV and
ONNX Runtime are all there is. What a server is to do comes in the environment, as `COMPARE_*`.
"""

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import simplejpeg
from PIL import Image

Pixels = npt.NDArray[np.uint8]

SHORT_SIDE, SIDE = 256, 224
TOP_K = 5
MAX_BATCH = 8
MAX_WAIT = 0.002  # seconds

MODEL = os.environ.get("COMPARE_MODEL", "models/mobilenet_v2/1")  # the folder of the exported model
PIXELS = os.environ.get("COMPARE_PIXELS", "fast")  # pillow or fast
PORT = int(os.environ.get("COMPARE_PORT", "0"))


def pillow(photo: Image.Image) -> Pixels:
    """Resize and crop with Pillow, as the checkpoint was evaluated. Returns uint8 [224, 224, 3] RGB."""
    width, height = _scaled(*photo.size)
    resized = photo.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - SIDE) / 2), round((height - SIDE) / 2)
    return np.asarray(resized.crop((left, top, left + SIDE, top + SIDE)))


def fast(data: bytes) -> Pixels:
    """Decode with libjpeg-turbo's scaling, resize with OpenCV, crop. Returns uint8 [224, 224, 3] RGB."""
    height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    width, height = _scaled(width, height)
    decoded = simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width)
    resized = cv2.resize(decoded, (width, height), interpolation=cv2.INTER_LINEAR)
    left, top = round((width - SIDE) / 2), round((height - SIDE) / 2)
    return np.asarray(resized[top : top + SIDE, left : left + SIDE], np.uint8)


class Classifier:
    """The model on one thread, with its labels."""

    def __init__(self, folder: str = MODEL) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        path = Path(folder)
        self._session = ort.InferenceSession(str(path / "model.onnx"), options, providers=["CPUExecutionProvider"])
        self._labels: list[str] = json.loads((path / "card.json").read_text(encoding="utf-8"))["labels"]

    def prepare(self, data: bytes) -> Pixels:
        """Turn a JPEG's bytes into uint8 [224, 224, 3] RGB, in the way that `COMPARE_PIXELS` names."""
        return fast(data) if PIXELS == "fast" else pillow(Image.open(io.BytesIO(data)))

    def classify(self, images: Sequence[Pixels]) -> list[dict[str, Any]]:
        """Run one batch and return each image's answer."""
        (probabilities,) = self._session.run(["probabilities"], {"images": np.stack(images)})
        return [self._answer(row) for row in probabilities]

    def _answer(self, row: npt.NDArray[np.float32]) -> dict[str, Any]:
        best = np.argpartition(row, -TOP_K)[-TOP_K:]
        best = best[np.argsort(-row[best])]
        return {"predictions": [{"class_id": int(i), "label": self._labels[i], "score": float(row[i])} for i in best]}


def _scaled(width: int, height: int) -> tuple[int, int]:
    if width <= height:
        return SHORT_SIDE, int(SHORT_SIDE * height / width)
    return int(SHORT_SIDE * width / height), SHORT_SIDE
