"""What Ultralytics notes in its checkpoints and in the ONNX files that it exports: task, head, class names, size.

`export.importer` reads them, and `export.families.yolo_onnx` refuses the heads that it cannot decode.
"""

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from zoo.card import LARGEST_SIDE, Task
from zoo.errors import ExportError

_HEADS: Mapping[str, Task] = {
    "Classify": "classify",
    "Detect": "detect",
    "OBB": "obb",
    "OBB26": "obb",
    "Pose": "pose",
    "Pose26": "pose",
    "RTDETRDecoder": "detect",
    "Segment": "segment",
    "Segment26": "segment",
    "WorldDetect": "detect",
    "YOLOEDetect": "detect",
    "YOLOESegment": "segment",
    "YOLOESegment26": "segment",
    "v10Detect": "detect",
}
_TASKS: Mapping[str, Task] = {task: task for task in _HEADS.values()}
_OTHERS = {
    "depth": "distances",
    "semantic": "a class for each pixel, without a background",
}
"""What ONNX files for the library's other tasks answer; none of it is served as such."""


@dataclass(frozen=True)
class Notes:
    """A file's `metadata_props`, as text; empty where it has none.

    Ultralytics writes `task`, `names`, `stride` and `imgsz`, since its version 8.4 `head`, and `kpt_shape` for pose.
    """

    noted: Mapping[str, str]

    @property
    def of_ultralytics(self) -> bool:
        return self.noted.keys() >= {"names", "stride"}

    @property
    def rt_detr(self) -> bool:
        """Whether it is an RT-DETR; without a note of the head, its description says so."""
        head, description = self.noted.get("head", ""), self.noted.get("description", "")
        return head == "RTDETRDecoder" or (not head and re.search("rt-?detr", description, re.IGNORECASE) is not None)

    @property
    def names(self) -> tuple[str, ...]:
        """The class names that are noted, or none."""
        return class_names(_literal(self.noted.get("names", "")))

    @property
    def unread_names(self) -> str:
        """The beginning of a note of class names that cannot be read; empty where there is none."""
        note = self.noted.get("names", "")
        return repr(note[:80]) if not self.names and _literal(note) not in ([], {}) and note else ""

    @property
    def points(self) -> int:
        """The number of keypoints of a pose; COCO's 17 where it is not noted."""
        return self._keypoints[0]

    @property
    def point_length(self) -> int:
        """The numbers of a keypoint: x, y and, unless the notes say otherwise, a score."""
        return self._keypoints[1]

    @property
    def _keypoints(self) -> tuple[int, int]:
        match _literal(self.noted.get("kpt_shape", "")):
            case [int(points), (2 | 3) as length] if points > 0:
                return points, length
        return 17, 3

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the input, in pixels, or None."""
        match _literal(self.noted.get("imgsz", "")):
            case [int(height), int(width)] if 0 < min(height, width) <= max(height, width) <= LARGEST_SIDE:
                return height, width
        return None

    def task(self, path: Path) -> Task | None:
        """Return the task that the file is for, or None where it does not say.

        Args:
            path: of the file, for the message.

        Raises:
            ExportError: the file says that it is for something else.
        """
        task, head = self.noted.get("task", ""), self.noted.get("head", "")
        if "kpt_shape" in self.noted:
            task = "pose"
        known = _TASKS.get(task) if task else _HEADS.get(head)
        fits = known is not None and (not head or _HEADS.get(head) == known)
        if (task or head) and not fits and (self.of_ultralytics or task in _OTHERS):
            noted = " and ".join(f"{key} {value!r}" for key, value in (("task", task), ("head", head)) if value)
            answer = (
                f"such a network answers {_OTHERS[task]}" if task in _OTHERS else "what it answers is not known here"
            )
            raise ExportError(
                f"{path}: it is noted as {noted}: {answer}, which is not served with its meaning. "
                "--task tensors serves its tensors as they are, where it was exported with a free batch (dynamic=True)"
            )
        return known


def class_names(noted: object) -> tuple[str, ...]:
    """Return the names in the order of their class ids; none where the note is not of that form.

    Args:
        noted: a list, or a dict from the ids 0, 1, 2, ... (as numbers or as text) in whatever order they were written.
    """
    if isinstance(noted, dict):
        by_id = {str(class_id): name for class_id, name in noted.items()}
        if by_id.keys() != {str(class_id) for class_id in range(len(noted))}:
            return ()
        noted = [by_id[str(class_id)] for class_id in range(len(by_id))]
    return tuple(map(_text, noted)) if isinstance(noted, list | tuple) else ()


def _text(name: object) -> str:
    """Return a name as text; halves of a character that stand alone (surrogates) cannot be written, and become `?`."""
    return str(name).encode("utf-8", "replace").decode()


def _literal(note: str) -> object:
    """Return what a note says as JSON or as a literal of Python, or None where it is neither."""
    try:
        return cast(object, json.loads(note))  # first: JSON writes an emoji as two escapes, which are one character
    except (RecursionError, ValueError):
        pass
    try:
        return cast(object, ast.literal_eval(note))
    except (MemoryError, RecursionError, SyntaxError, TypeError, ValueError):
        return None
