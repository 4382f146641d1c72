"""What the rows of a detector mean: its file's notes and shapes leave several layouts or one; real photos must agree.

Called by `export.importer.draft`. A layout that does not fit the answers to photos is refused.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.families.yolo_onnx import LAYOUTS, layouts
from export.onnx_file.rows import Layout
from export.ultralytics.notes import Notes
from zoo.errors import ExportError

Table = npt.NDArray[np.floating[Any]]
_MOST_OBJECTS = 1000  # rows of a network that chooses its objects; others have a row for each of thousands of anchors
_STRIDES = (4, 8, 16, 32, 64, 128)
_ANCHORS = range(1, 10)  # boxes per cell
_UNIT = 2.0  # the largest coordinate of boxes in 0..1; of boxes in pixels, it is less for no photo's surest box
_SLACK = 1e-3  # of scores
_LARGEST_LOG = 12.0  # of a size in cells
_ORDER = (
    "yolov8",
    "end2end",
    "rtdetr_top",
    "yolov5",
    "yolox",
    "rtdetr",
)  # where several fit; a column of class ids is no chance


def counts(shape: tuple[int, ...], more: Mapping[str, int], size: tuple[int, int], notes: Notes) -> tuple[int, ...]:
    """Return how many classes rows can be of, the likeliest first; none where their shape leaves it open.

    Args:
        shape: of the rows, [N, ., .].
        more: what each row has besides box and classes (`yolo_onnx.more_of`).
        size: height and width of the input.
        notes: of the file.
    """
    found = []
    for name in LAYOUTS:
        layout = layouts(1, more).get(name)
        if layout is None or layout.unit != notes.rt_detr or layout.in_cells or not _enough_rows(name, shape, size):
            continue  # YOLOX's rows have as many classes as yolov5's
        classes = shape[layout.axis] - sum(layout.parts.values()) + 1
        if "class" not in layout.parts and classes > 0:
            found.append(classes)
        elif "class" in layout.parts and classes == 1:
            return ()  # end to end: of any number
    return tuple(found)


def choose_layout(
    table: Table, classes: int, more: Mapping[str, int], size: tuple[int, int], notes: Notes, path: Path
) -> tuple[str, str]:
    """Return the name of the layout of a detector's rows, and how it is known.

    Args:
        table: its answers to real photos, float [M, ., .].
        classes: how many labels there are.
        more: what each row has besides box and classes.
        size: height and width of the input.
        notes: of the file.
        path: of the file, for the message.

    Raises:
        ExportError: no layout fits the shape, or those that do are not what is answered on the photos.
    """
    shape, faults = table.shape, []
    known = layouts(classes, more)
    for name in _ORDER:
        layout = known.get(name)
        if layout is None or layout.unit != notes.rt_detr:
            continue
        if not layout.fits(shape, size) or not _enough_rows(name, shape, size):
            continue
        fault = next(_faults(layout, table, classes), None)
        if fault is None:
            return name, "the file's notes" if notes.rt_detr else "its shape, and what it answers on photos"
        faults.append(f"as {name} {LAYOUTS[name]}, {fault}")
    described = "; ".join(faults) or f"known are {'; '.join(f'{name} {form}' for name, form in LAYOUTS.items())}"
    raise ExportError(
        f"{path}: its rows {['N', *shape[1:]]}, with {_listed(more)} and {classes} labels, have no meaning that is "
        f"known: {described}. Export the network with its usual head, or serve its tensors as they are: --task tensors"
    )


def _listed(more: Mapping[str, int]) -> str:
    return f"{sum(more.values())} {next(iter(more))}" if more else "nothing more"


def _enough_rows(name: str, shape: tuple[int, ...], size: tuple[int, int]) -> bool:
    """Whether there can be as many rows as there are: one for each anchor, or for some objects."""
    if name not in {"yolov8", "yolov5", "yolox"}:
        return shape[1] <= _MOST_OBJECTS
    rows = shape[2 if name == "yolov8" else 1]
    return rows > _MOST_OBJECTS or any(rows == cells * each for cells in _grids(size) for each in _ANCHORS)


def _grids(size: tuple[int, int]) -> Iterator[int]:
    """The numbers of cells of the maps of neighbouring strides, of which the finest is at most 32."""
    cells = [-(-size[0] // stride) * -(-size[1] // stride) for stride in _STRIDES]
    for first in range(_STRIDES.index(32) + 1):
        for last in range(first, len(_STRIDES)):
            yield sum(cells[first : last + 1])


def _faults(layout: Layout, table: Table, classes: int) -> Iterator[str]:
    """Say what rows hold on photos that such a layout cannot."""
    table = table if layout.axis == 2 else table.transpose(0, 2, 1)
    ends = np.cumsum(list(layout.parts.values()))[:-1]
    parts = dict(zip(layout.parts, np.split(table, ends, axis=2), strict=True))
    every = [parts[name] for name in ("score", "scores", "objectness") if name in parts]
    low, high = min(float(one.min()) for one in every), max(float(one.max()) for one in every)
    if not (low >= -_SLACK and high <= 1 + _SLACK):
        yield f"its scores would go from {low:.3g} to {high:.3g} instead of from 0 to 1"
        return
    scores = parts["score"][..., 0] if "score" in parts else parts["scores"].max(2)
    scores = scores * parts["objectness"][..., 0] if "objectness" in parts else scores
    if "class" in parts:
        ids = parts["class"][..., 0][scores > 0]
        if not ((ids == np.round(ids)) & (ids >= 0) & (ids < classes)).all():
            yield f"its column of classes would hold other numbers than the ids 0 to {classes - 1}"
    best = scores.argmax(1)
    photos = np.flatnonzero(scores.max(1) > 0)
    boxes = parts["boxes" if "boxes" in parts else "centres"][photos, best[photos]]
    if not len(boxes):
        return
    largest = float(np.abs(boxes).max())
    if "objectness" in parts:  # no exporter's own boxes have negative sizes, and seldom a logarithm is so large
        smallest, size = float(parts["centres"][..., 2:].min()), float(parts["centres"][..., 2:].max())
        if layout.in_cells and size > _LARGEST_LOG:
            yield f"its boxes would be as large as exp({size:.3g}) cells"
        if not layout.in_cells and smallest < 0:
            yield f"its boxes would have sizes such as {smallest:.3g}"
    if layout.in_cells:
        return
    if layout.unit and not largest <= _UNIT:
        yield f"its boxes would have coordinates up to {largest:.0f} instead of 1"
    if not layout.unit and not largest > _UNIT:
        yield "its boxes would be in 0..1 instead of in pixels"
    if "boxes" in parts and "angle" not in parts and not (boxes[:, 2:] >= boxes[:, :2]).all():
        yield "its boxes would end before they begin"
