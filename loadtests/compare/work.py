"""The work that every server of the comparison does: one JPEG -> decode, resize, run the graph, answer its task.

Imported by the bare loops and by each peer's server, in that peer's own environment: Pillow, simplejpeg, OpenCV and
ONNX Runtime are all there is. What a server is to do comes in the environment, as `COMPARE_*`.
"""

import base64
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import simplejpeg
from PIL import Image

Pixels = npt.NDArray[np.uint8]
Answer = dict[str, Any]

TOP_K = 5
SCORE, OVERLAP, MOST = 0.25, 0.45, 100  # of objects: the lowest score, the largest IoU of two, how many at most
MAX_BATCH = 8
MAX_WAIT = 0.002  # seconds

MODEL = os.environ.get("COMPARE_MODEL", "models/mobilenet_v2/1")  # the folder of the exported model
PIXELS = os.environ.get("COMPARE_PIXELS", "fast")  # pillow or fast
PORT = int(os.environ.get("COMPARE_PORT", "0"))
THREADS = int(os.environ.get("COMPARE_THREADS", "1"))  # of one run of the graph; 0: as many as ONNX Runtime takes
# Quickest and smallest for masks, as zooserve writes them. PyTriton needs OpenCV 4, where filters cannot be chosen.
_PNG = [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
if hasattr(cv2, "IMWRITE_PNG_FILTER"):
    _PNG += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]


class Placed(Protocol):
    """Where a photo lies in the graph's input: its own size, then its scale and its corner there, in pixels."""

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def scale_x(self) -> float: ...
    @property
    def scale_y(self) -> float: ...
    @property
    def offset_x(self) -> float: ...
    @property
    def offset_y(self) -> float: ...


class Placement(NamedTuple):
    """See `Placed`."""

    width: int
    height: int
    scale_x: float
    scale_y: float
    offset_x: float
    offset_y: float


class Prepared(NamedTuple):
    """A photo as the graph takes it, uint8 [H, W, 3] RGB, and where it lies in there."""

    pixels: Pixels
    where: Placed


class Work:
    """An exported model: prepares photos for its graph, runs it, and answers as its task asks for.

    Args:
        folder: of the exported model.
        threads: of one run of the graph; 0 leaves them to ONNX Runtime.
        spin: whether threads that wait keep their core busy, ONNX Runtime's default.
    """

    def __init__(self, folder: str = MODEL, threads: int = THREADS, *, spin: bool = True) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        if not spin:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = Path(folder)
        self.card: dict[str, Any] = json.loads((path / "card.json").read_text(encoding="utf-8"))
        self._labels: list[str] = self.card["labels"]
        self._session = ort.InferenceSession(str(path / "model.onnx"), options, providers=["CPUExecutionProvider"])
        found = [output.name for output in self._session.get_outputs()]
        wanted = ("probabilities", "boxes", "scores", "classes", "alpha", "mask")
        self._outputs = [name for name in wanted if name in found]

    def prepare(self, data: bytes) -> Prepared:
        """Decode and resize a JPEG in the way that `COMPARE_PIXELS` names."""
        return self.fast(data) if PIXELS == "fast" else self.pillow(Image.open(io.BytesIO(data)))

    def pillow(self, photo: Image.Image) -> Prepared:
        """Resize with Pillow, as the checkpoints were evaluated."""
        size, where = self._place(*photo.size)
        resampling = Image.Resampling[self.card["recipe"]["interpolation"].upper()]
        resized = photo.convert("RGB").resize(size, resampling)
        return Prepared(self._fit(np.asarray(resized), where), where)

    def fast(self, data: bytes) -> Prepared:
        """Decode with libjpeg-turbo's scaling, resize with OpenCV."""
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        size, where = self._place(width, height)
        decoded = simplejpeg.decode_jpeg(data, "RGB", min_height=size[1], min_width=size[0])
        resized = np.asarray(cv2.resize(decoded, size, interpolation=cv2.INTER_LINEAR), np.uint8)
        return Prepared(self._fit(resized, where), where)

    def resize(self, pixels: Pixels) -> Prepared:
        """Resize a decoded photo, or a part of one, uint8 [H, W, 3] RGB, with OpenCV."""
        size, where = self._place(pixels.shape[1], pixels.shape[0])
        resized = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR), np.uint8)
        return Prepared(self._fit(resized, where), where)

    def answer(self, photos: Sequence[Prepared]) -> list[Answer]:
        """Run one batch and return each photo's answer."""
        found = self._session.run(self._outputs, {"images": np.stack([photo.pixels for photo in photos])})
        rows = [dict(zip(self._outputs, row, strict=True)) for row in zip(*found, strict=True)]
        task = {"classify": self._classes, "detect": self._objects, "segment": self._masks}[self.card["task"]]
        return [{"predictions": task(row, photo.where)} for row, photo in zip(rows, photos, strict=True)]

    def _place(self, width: int, height: int) -> tuple[tuple[int, int], Placement]:
        """The size that a photo is scaled to, and where it lies then."""
        recipe = self.card["recipe"]
        across, down = recipe["width"], recipe["height"]
        if recipe["resize"] == "stretch":
            new = across, down
        elif short := recipe["short_side"]:
            new = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
        else:
            scale = min(across / width, down / height)
            new = max(1, round(width * scale)), max(1, round(height * scale))
        corner = (round((across - new[0]) / 2), round((down - new[1]) / 2))
        left, top = (0, 0) if recipe["resize"] == "letterbox_top_left" else corner
        return new, Placement(width, height, new[0] / width, new[1] / height, left, top)

    def _fit(self, resized: Pixels, where: Placement) -> Pixels:
        """Cut off what is outside of the graph's input, or fill what is left of it."""
        recipe = self.card["recipe"]
        height, width = recipe["height"], recipe["width"]
        left, top = int(where.offset_x), int(where.offset_y)
        if recipe["resize"] == "crop":
            return resized[-top : height - top, -left : width - left]
        if resized.shape[:2] == (height, width):
            return resized
        canvas = np.empty((height, width, 3), np.uint8)
        canvas[:] = recipe["pad"]
        canvas[top : top + resized.shape[0], left : left + resized.shape[1]] = resized
        return canvas

    def _classes(self, outputs: dict[str, Any], _: Placed) -> list[dict[str, Any]]:
        row = outputs["probabilities"]
        best = np.argpartition(row, -TOP_K)[-TOP_K:]
        best = best[np.argsort(-row[best])]
        return [{"class_id": int(i), "label": self._labels[i], "score": float(row[i])} for i in best]

    def _objects(self, outputs: dict[str, Any], where: Placed) -> list[dict[str, Any]]:
        """Boxes (xyxy, pixels of the photo) of what is left after NMS per class; the scores of a graph fall."""
        count = int(np.searchsorted(-outputs["scores"], -SCORE, side="right"))
        if not count:
            return []
        boxes, scores, classes = (outputs[name][:count] for name in ("boxes", "scores", "classes"))
        kept: Any = range(min(count, MOST))
        if self.card["nms"]:
            corners: Any = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1, dtype=np.float64)
            kept = np.asarray(cv2.dnn.NMSBoxesBatched(corners, scores, classes, 0.0, OVERLAP), np.intp)[:MOST]
        corner = np.array([where.offset_x, where.offset_y] * 2)
        scale = np.array([where.scale_x, where.scale_y] * 2)
        photo = ((boxes - corner) / scale).clip(0, [where.width, where.height] * 2).round(2)
        return [
            {
                "class_id": int(classes[i]),
                "label": self._labels[classes[i]],
                "score": float(scores[i]),
                "box": photo[i].tolist(),
            }
            for i in kept
        ]

    def _masks(self, outputs: dict[str, Any], where: Placed) -> list[dict[str, Any]]:
        """A PNG of the photo's size for the salient object's opacity, or for each class of the photo."""
        left, top = int(where.offset_x), int(where.offset_y)
        width, height = round(where.scale_x * where.width), round(where.scale_y * where.height)
        soft = "alpha" in outputs
        seen = outputs["alpha" if soft else "mask"][top : top + height, left : left + width]
        found = []
        for i in [1] if soft else [int(i) for i in np.unique(seen) if i]:
            mask = seen if soft else np.where(seen == i, np.uint8(254), np.uint8(0))
            area = float(np.count_nonzero(mask >= 128)) / seen.size
            whole = cv2.resize(mask, (where.width, where.height), interpolation=cv2.INTER_LINEAR)
            if not soft:
                whole = cv2.threshold(whole, 127, 255, cv2.THRESH_BINARY)[1]
            png = base64.b64encode(cv2.imencode(".png", whole, _PNG)[1].tobytes()).decode()
            found.append({"class_id": i, "label": self._labels[i], "area": area, "mask": {"png": png}})
        return sorted(found, key=lambda one: -float(one["area"]))
