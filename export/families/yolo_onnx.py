"""YOLO and RT-DETR detectors, and instance segmenters, published as ONNX: their answers are recognised and decoded.

Most of them are what Ultralytics' `export` writes, with a batch of one; `export.onnx_file` frees it.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, compose

from export.families.onnx import check_input
from export.network import Network, RawOutputs
from export.onnx_file.batch import free_batch
from export.onnx_file.external import data_files
from export.onnx_file.reading import keep, one_by_one, open_session, read, reference_name
from export.onnx_file.rows import Layout, decode_rows
from export.options import FamilyOptions
from export.ultralytics.notes import Notes
from export.ultralytics.selection import PREDICT, VAL, VAL_OF_OBJECTS
from zoo.card import Task
from zoo.errors import ExportError
from zoo.keypoints import find_keypoints
from zoo.labels import read_labels
from zoo.model_card import ModelCard

LAYOUTS = {
    "yolov8": "[N, 4 + classes + more, anchors]: centre and size, class scores, and more (v5u, v8, 11)",
    "yolov5": "[N, anchors, 5 + classes + masks]: centre and size, objectness, class scores, coefficients (v5, v7)",
    "yolox": "[N, cells, 5 + classes]: place in its cell and logarithm of the size, objectness, class scores (YOLOX)",
    "end2end": "[N, objects, 6 + more]: xyxy, score, class, and more; no NMS is owed (v10, 26)",
    "rtdetr": "[N, queries, 4 + classes]: centre and size in 0..1, class scores; no NMS is owed (RT-DETR)",
    "rtdetr_top": "[N, objects, 6]: centre and size in 0..1, score, class; no NMS is owed (RT-DETR, as 8.4 writes it)",
}
"""`more` are coefficients of a mask, keypoints, or an angle; with an angle, a box is always centre and size."""


def layouts(classes: int, more: Mapping[str, int]) -> dict[str, Layout]:
    """Return the layouts of `LAYOUTS` for so many classes, and what each row has more; that of RT-DETR has no more."""
    known = {
        "yolov8": Layout({"centres": 4, "scores": classes, **more}, axis=1),
        "end2end": Layout({"boxes": 4, "score": 1, "class": 1, **more}, nms=False),
    }
    if not {"keypoints", "angle"} & more.keys():
        known["yolov5"] = Layout({"centres": 4, "objectness": 1, "scores": classes, **more})
    if more:
        return known
    return known | {
        "yolox": Layout({"centres": 4, "objectness": 1, "scores": classes}, in_cells=True),
        "rtdetr": Layout({"centres": 4, "scores": classes}, nms=False, unit=True),
        "rtdetr_top": Layout({"centres": 4, "score": 1, "class": 1}, nms=False, unit=True),
    }


def more_of(task: Task, masks: int, points: int, notes: Notes) -> dict[str, int]:
    """Return what each row has besides its box and its classes, part by part with its length.

    Args:
        task: of the network.
        masks: how many coefficients an instance has.
        points: how many keypoints a pose has: x, y, and a score, unless the notes say that there is none.
        notes: of the file.
    """
    if task == "obb":
        return {"angle": 1}
    if task == "pose":
        return {"keypoints": points * notes.point_length}
    return {"coefficients": masks} if masks else {}


class Options(FamilyOptions, frozen=True):
    """Of a card of this family; `build` says what they mean."""

    output: str | None = None
    layout: str | None = None
    one_by_one: bool = False


def build(card: ModelCard, files: dict[str, Path]) -> Network:
    """Decode the answers of the ONNX file `weights`; the file, in ONNX Runtime, is the reference.

    Options, which may be left out where the shapes leave no doubt: `output`, the name of the output that holds the
    boxes; `layout`, one of `LAYOUTS`. An instance segmenter has one more output, its prototypes [N, masks, h, w].
    `one_by_one = true`: the images of a batch do not stay independent in the graph, so it runs them one by one.
    What Ultralytics notes in the file goes before its shapes: another head is refused, and RT-DETR is that.

    An end-to-end file that chooses its objects by TopK over the anchors' class scores is cut before that choice, which
    is seldom right for more than one image; the head of every served graph makes the same one.

    Raises:
        ExportError: not an ONNX file, another input than one float32 [N, 3, H, W] of the recipe's size, a batch size
            that is built into the graph, a head for another task, or outputs in no known layout for as many classes
            as the card has labels.
    """
    path = files["weights"]
    model, session = read(path, data_files(files))
    check_input(card, session, path)
    notes = Notes(session.get_modelmeta().custom_metadata_map)
    if (noted := notes.task(path)) not in {None, card.task}:
        raise ExportError(f"{path}: it is noted as a network that can {noted}, but {card.name} is to {card.task}")
    size = (card.recipe.height, card.recipe.width)
    image = session.get_inputs()[0].name
    names = [output.name for output in session.get_outputs()]
    answers = one_by_one(session, names, np.zeros((1, 3, *size), np.float32))
    shapes = {name: answer.shape for name, answer in zip(names, answers, strict=True)}

    raw = {"rows": _rows(card, shapes, path)}
    if card.task == "segment":
        raw["prototypes"] = _prototypes(card, shapes, path)
    layout = _layout(card, shapes, raw, notes, path)
    if not layout.nms and not layout.unit and (scored := _scored_anchors(model)) is not None:
        raw["rows"] = scored
        session = open_session(keep(model, image, {name: name for name in raw.values()}).SerializeToString())
        shape = one_by_one(session, [scored], np.zeros((1, 3, *size), np.float32))[0].shape
        layout = _per_class(card, shape, layout, path)
    decode = decode_rows(layout, size, _points(card))
    decoding = open_session(decode.SerializeToString())

    def reference(x: npt.NDArray[np.float32]) -> RawOutputs:
        published = dict(zip(raw, one_by_one(session, list(raw.values()), x), strict=True))
        decoded = decoding.run(None, {"decode/rows": published.pop("rows")})
        return dict(zip((output.name for output in decode.graph.output), decoded, strict=True)) | published

    kept = keep(model, image, raw)
    decode.ir_version = kept.ir_version
    network = compose.merge_models(kept, decode, [("rows", "decode/rows")])
    module = free_batch(network, size, path, one_by_one=bool(card.options.get("one_by_one")))
    if notes.of_ultralytics:
        val = VAL if layout.nms else VAL_OF_OBJECTS
        return Network(module, reference_name(path), reference, nms=layout.nms, nms_options=PREDICT, evaluation=val)
    return Network(module, reference_name(path), reference, nms=layout.nms)


def _rows(card: ModelCard, shapes: Mapping[str, tuple[int, ...]], path: Path) -> str:
    tables = [name for name, shape in shapes.items() if len(shape) == 3]
    chosen = card.options.get("output", tables[0] if len(tables) == 1 else None)
    if chosen not in tables:
        raise ExportError(
            f"{path}: the card's option `output` is {chosen!r}, expected the one of {_listed(shapes)} that holds the "
            f"boxes of all scales, decoded, [N, ., .]. Where there is none, export the network with its detection head"
        )
    return str(chosen)


def _prototypes(card: ModelCard, shapes: Mapping[str, tuple[int, ...]], path: Path) -> str:
    maps = [name for name, shape in shapes.items() if len(shape) == 4]
    if len(maps) != 1:
        raise ExportError(
            f"{path}: {card.name} segments, so one output must hold the prototypes [N, masks, h, w], "
            f"but there are {_listed(shapes)}"
        )
    return maps[0]


def _layout(
    card: ModelCard, shapes: Mapping[str, tuple[int, ...]], raw: Mapping[str, str], notes: Notes, path: Path
) -> Layout:
    """Find the one layout that fits the notes, the shapes and the number of labels, or that the card names of those."""
    classes = len(read_labels(card.labels))
    masks = shapes[raw["prototypes"]][1] if "prototypes" in raw else 0
    shape = shapes[raw["rows"]]
    known = layouts(classes, more_of(card.task, masks, _points(card), notes))
    size = (card.recipe.height, card.recipe.width)
    fitting = [name for name, layout in known.items() if layout.fits(shape, size)]
    if notes.of_ultralytics:
        fitting = [name for name in fitting if known[name].unit == notes.rt_detr]
    # Boxes in 0..1 are in nothing that the shape shows: where the file does not say so, the card must.
    open_ones = [name for name in fitting if known[name].unit == notes.rt_detr]
    chosen = card.options.get("layout", open_ones[0] if len(open_ones) == 1 else None)
    if chosen not in fitting:
        described = "; ".join(f"{name} {form}" for name, form in LAYOUTS.items())
        raise ExportError(
            f"{path}: the output {raw['rows']!r} {list(shape)}, with {masks} masks and the {classes} labels of "
            f"{card.labels!r}, fits {' and '.join(fitting) or 'no known layout'}; the card's option `layout` is "
            f"{chosen!r}. Known are {described}"
        )
    return known[str(chosen)]


def _points(card: ModelCard) -> int:
    return 0 if card.keypoints is None else len(find_keypoints(card.keypoints).names)


def _per_class(card: ModelCard, shape: tuple[int, ...], chosen: Layout, path: Path) -> Layout:
    """The layout of an end-to-end network's anchors before it chooses: [N, anchors, 4 + classes + more]."""
    classes = len(read_labels(card.labels))
    more = {name: length for name, length in chosen.parts.items() if name not in {"boxes", "score", "class"}}
    if shape[2] != 4 + classes + sum(more.values()):
        raise ExportError(
            f"{path}: the network scores {shape[2] - 4 - sum(more.values())} classes, but {card.labels!r} has "
            f"{classes} labels"
        )
    return Layout({"boxes": 4, "scores": classes, **more}, nms=False)


def _scored_anchors(model: ModelProto) -> str | None:
    """Return the tensor that an end-to-end network splits into boxes and scores and chooses from: by the best class.

    None where no `Split` is followed by `ReduceMax` and `TopK`.
    """
    makers = {output: node for node in model.graph.node for output in node.output}

    def maker(node: NodeProto) -> NodeProto | None:
        """What made a node's first input; float16 has casts in between."""
        made = makers.get(node.input[0])
        return maker(made) if made is not None and made.op_type == "Cast" else made

    for node in model.graph.node:
        best = maker(node) if node.op_type == "TopK" else None
        split = maker(best) if best is not None and best.op_type == "ReduceMax" else None
        if split is not None and split.op_type == "Split":
            return str(split.input[0])
    return None


def _listed(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name!r} {list(shape)}" for name, shape in shapes.items())
