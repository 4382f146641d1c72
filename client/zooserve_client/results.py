"""The typed result of a call, with arrays and masks. The clients return it."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from zooserve_client import rle


class Prediction(TypedDict, total=False):
    """One prediction from the server's JSON. Its keys depend on the task and its options."""

    class_id: int
    label: str
    score: float
    box: list[float]
    bbox: list[float]
    area: float
    mask: Mapping[str, Any]
    heatmap: Mapping[str, Any]
    embedding: list[float]
    keypoints: Mapping[str, list[float]] | list[float]
    corners: list[list[float]]
    center: list[float]
    size: list[float]
    angle: float
    crop: list[int]
    second: Mapping[str, Any]
    error: Mapping[str, str]
    skipped: str


@dataclass(frozen=True, eq=False)
class Result:
    """The answer to one image. Arrays have one row for each of its K predictions, in their order.

    Attributes:
        model: name of the model.
        version: of the model.
        task: classify, embed, detect, segment, pose or obb.
        width: of the image in pixels, after its EXIF orientation was applied.
        height: the same.
        predictions: the best (or, of classes with areas, the largest) first.
        request_id: of the call in the server's log.
        timing: the server's time in milliseconds, by stage, and in `total`.
        pipeline: name of the pipeline that was asked; then the rest is about its detector.
    """

    model: str
    version: str
    task: str
    width: int
    height: int
    predictions: Sequence[Prediction]
    request_id: str = ""
    timing: Mapping[str, float] = field(default_factory=dict)
    pipeline: str = ""

    @classmethod
    def read(
        cls, answer: Mapping[str, Any], request_id: str = "", timing: Mapping[str, float] | None = None
    ) -> "Result":
        """Make a result from the decoded JSON of `/v1/<task>`."""
        size, found = answer["image"], answer["predictions"]
        about = answer["model"], answer["version"], answer["task"]
        return cls(*about, size["width"], size["height"], found, request_id, timing or {}, answer.get("pipeline", ""))

    def to_dict(self) -> dict[str, Any]:
        """Return the result in the form of the server's JSON."""
        about = {"model": self.model, "version": self.version, "task": self.task}
        answer = about | {"image": {"width": self.width, "height": self.height}, "predictions": self.predictions}
        return answer | ({"pipeline": self.pipeline} if self.pipeline else {})

    def __len__(self) -> int:
        return len(self.predictions)

    @cached_property
    def labels(self) -> list[str]:
        """Names of the classes [K]."""
        return [found["label"] for found in self.predictions]

    @cached_property
    def class_ids(self) -> npt.NDArray[np.int64]:
        """Ids of the classes, int64 [K]."""
        return np.array([found["class_id"] for found in self.predictions], np.int64)

    @cached_property
    def scores(self) -> npt.NDArray[np.float32]:
        """Scores, float32 [K], 0 to 1; NaN for classes with areas, which have no score."""
        return np.array([found.get("score", np.nan) for found in self.predictions], np.float32)

    @cached_property
    def boxes(self) -> npt.NDArray[np.float32]:
        """Boxes (left, top, right, bottom), float32 [K, 4], in pixels of the upright image; NaN without a box."""
        nowhere = [np.nan] * 4
        rows = [found.get("box") or _corners(found.get("bbox", nowhere)) for found in self.predictions]
        return np.array(rows, np.float32).reshape(-1, 4)

    @cached_property
    def keypoints(self) -> npt.NDArray[np.float32]:
        """Keypoints of poses, float32 [K, P, 3]: x and y in pixels of the upright image, and a score, 0 to 1.

        Their names are the keys of `predictions[0]["keypoints"]`, without `form="coco"`. Where nothing was found, their
        number is not known: [0, 0, 3].
        """
        points = [found["keypoints"] for found in self.predictions]
        rows = [list(each.values()) if isinstance(each, Mapping) else each for each in points]
        return np.array(rows, np.float32).reshape(len(rows), -1 if rows else 0, 3)

    @cached_property
    def rotated_boxes(self) -> npt.NDArray[np.float32]:
        """Rotated boxes (x, y, width, height, angle), float32 [K, 5]: of the centre, in pixels; radians, clockwise."""
        rows = [[*found["center"], *found["size"], found["angle"]] for found in self.predictions]
        return np.array(rows, np.float32).reshape(-1, 5)

    @cached_property
    def corners(self) -> npt.NDArray[np.float32]:
        """Corners of rotated boxes, float32 [K, 4, 2], in pixels, clockwise from the object's own top left."""
        return np.array([found["corners"] for found in self.predictions], np.float32).reshape(-1, 4, 2)

    @cached_property
    def second(self) -> list["Result | None"]:
        """The second model's answers of a pipeline [K]; None where it was not asked, or failed.

        Each is about the crop of its object, as if that were an image: boxes and keypoints count from the left top
        corner of `predictions[k]["crop"]`, which is (left, top, right, bottom) in whole pixels of the upright image.
        """
        return [Result.read(found["second"]) if "second" in found else None for found in self.predictions]

    @cached_property
    def areas(self) -> npt.NDArray[np.float32]:
        """The shares of the image that the masks cover, float32 [K], 0 to 1; NaN without a mask."""
        return np.array([found.get("area", np.nan) for found in self.predictions], np.float32)

    @cached_property
    def embedding(self) -> npt.NDArray[np.float32]:
        """The features of the image, float32 [F].

        Raises:
            ValueError: the task is not embed.
        """
        if self.task != "embed":
            raise ValueError(f"the answer is to {self.task}, which has no embedding: ask with `embed`")
        return np.array(self.predictions[0]["embedding"], np.float32)

    def mask(self, index: int = 0) -> npt.NDArray[np.bool_]:
        """Return the mask of a prediction, bool [height, width].

        Raises:
            ValueError: the prediction has no mask.
            ImportError: the mask is a PNG, and Pillow is not installed.
        """
        mask = self._has(index, "mask")
        if "counts" in mask:
            return rle.decode(mask["counts"], *mask["size"])
        return _grey(mask) >= 128 if "png" in mask else _filled(mask["polygons"], self.width, self.height)

    @property
    def masks(self) -> npt.NDArray[np.bool_]:
        """All masks, bool [K, height, width]; raises as `mask`."""
        masks = np.zeros((len(self), self.height, self.width), np.bool_)
        for index in range(len(self)):
            masks[index] = self.mask(index)
        return masks

    def opacity(self, index: int = 0) -> npt.NDArray[np.uint8]:
        """Return the opacity of a salient object, uint8 [height, width]. Needs `mask="png"`; raises as `mask`."""
        return _grey(self._has(index, "mask"))

    def heatmap(self, index: int = 0) -> npt.NDArray[np.uint8]:
        """Return the heat map of a class, uint8 [height, width]. Needs `heatmap=True`; raises as `mask`."""
        return _grey(self._has(index, "heatmap"))

    def to_supervision(self) -> Any:
        """Convert to `supervision.Detections` (boxes, masks, scores) or, for classify, `supervision.Classifications`.

        Classes with areas get the boxes around their masks, and no confidence. Rotated boxes are in `data`, as
        supervision's `OrientedBoxAnnotator` expects them, with the boxes around them.

        Raises:
            ImportError: supervision is not installed.
            ValueError: predictions have areas but no masks, or are features.
        """
        try:
            import supervision as sv  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise ImportError("supervision is not installed: pip install 'zooserve-client[supervision]'") from error
        if self.task == "classify":
            return sv.Classifications(class_id=self.class_ids, confidence=self.scores)
        if self.task == "embed":
            raise ValueError("features are no detections: take `embedding`")
        if self.task == "obb":
            around = np.concatenate([self.corners.min(1), self.corners.max(1)], axis=1)
            data: dict[str, Any] = {"class_name": np.array(self.labels, np.str_)}
            data[sv.config.ORIENTED_BOX_COORDINATES] = self.corners
            return sv.Detections(xyxy=around, confidence=self.scores, class_id=self.class_ids, data=data)
        boxed = all("box" in found for found in self.predictions)
        masked = bool(len(self)) and (not boxed or all("mask" in found for found in self.predictions))
        masks = self.masks if masked else None
        return sv.Detections(
            xyxy=self.boxes if boxed or masks is None else np.array([_around(mask) for mask in masks], np.float32),
            mask=masks,
            confidence=self.scores if boxed else None,
            class_id=self.class_ids,
            data={"class_name": np.array(self.labels, np.str_)},
        )

    def _has(self, index: int, name: str) -> Any:
        if name not in self.predictions[index]:
            raise ValueError(f"prediction {index} ({self.labels[index]}) was answered without a {name}: ask for one")
        return self.predictions[index][name]  # type: ignore[literal-required]


def _corners(bbox: Sequence[float]) -> list[float]:
    """Return a box (left, top, right, bottom) of COCO's (left, top, width, height)."""
    left, top, width, height = bbox
    return [left, top, left + width, top + height]


def _around(mask: npt.NDArray[np.bool_]) -> list[float]:
    """Return the box around a mask (left, top, right, bottom); zeros for an empty mask."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] if columns.size else [0.0] * 4


def _grey(mask: Mapping[str, str]) -> npt.NDArray[np.uint8]:
    if "png" not in mask:
        raise ValueError(f'the mask was answered as {", ".join(mask)}: ask with mask="png"')
    with _pillow().open(io.BytesIO(base64.b64decode(mask["png"]))) as image:
        return np.asarray(image.convert("L"), np.uint8)


def _filled(polygons: Sequence[Sequence[float]], width: int, height: int) -> npt.NDArray[np.bool_]:
    """Fill polygons by the even-odd rule: a pixel is inside if its centre is."""
    filled = np.zeros((height, width), np.bool_)
    for polygon in polygons:
        points = np.clip(np.asarray(polygon, np.float64).reshape(-1, 2), 0, [width, height])
        (left, top), (right, bottom) = (np.floor(points.min(0)).astype(int), np.ceil(points.max(0)).astype(int))
        ends = np.stack([points, np.roll(points, -1, axis=0)]) - (left, top)
        # Edges are computed from top to bottom, so that the two lines that connect a hole are exactly equal.
        down = ends[0, :, 1] <= ends[1, :, 1]
        (x, y), (x1, y1) = np.where(down[:, None], ends[0], ends[1]).T, np.where(down[:, None], ends[1], ends[0]).T
        first, last = (np.ceil(end - 0.5).astype(int) for end in (y, y1))
        edge = np.repeat(np.arange(len(points)), last - first)  # once for each row whose centres it crosses
        row = np.arange(edge.size) - np.repeat(np.cumsum(last - first) - last, last - first)
        column = x[edge] + (row + 0.5 - y[edge]) / (y1 - y)[edge] * (x1 - x)[edge]
        passed = np.zeros((bottom - top, right - left + 1), np.int32)
        np.add.at(passed, (row, np.ceil(column - 0.5).astype(int)), 1)
        filled[top:bottom, left:right] |= np.cumsum(passed, axis=1)[:, :-1] % 2 == 1
    return filled


def _pillow() -> Any:
    try:
        from PIL import Image  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ImportError("masks in this form need Pillow: pip install 'zooserve-client[pillow]'") from error
    return Image
