"""From an ONNX file to the card that fits it, as far as the file and its owner say; what they do not say is assumed.

`export.own.command` calls `draft_onnx`; `export.own.trial` then chooses among the normalisations that remain.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from export.onnx_file.external import find_data_files
from export.own.graph import Graph, inspect
from export.own.labels import shown_names, write_names
from export.own.photos import inputs
from export.own.pixels import onnx_pixels
from export.own.rows import choose_layout, counts
from export.own.wishes import Wishes
from zoo.card import AnyCard, Licence, ModelCard, Normalise, Recipe, Source, Task
from zoo.errors import ExportError
from zoo.hashing import sha256_of
from zoo.labels import read_labels

Answers = dict[str, npt.NDArray[np.float32]]
AGPL = "AGPL-3.0-only"
_USUAL_LABELS = {("classify", 1000): "imagenet1k", ("detect", 80): "coco80", ("segment", 21): "voc21"}


class Fact(NamedTuple):
    """A line of the report: what, its value, and how that is known (`the file`, `given`, or `assumed: ...`)."""

    what: str
    value: str
    known: str


@dataclass
class Draft:
    """A card that lacks no more than its normalisation, where `candidates` has several, by what they are called."""

    card: AnyCard
    labels: tuple[str, ...]
    facts: list[Fact]
    candidates: dict[str, Normalise] = field(default_factory=dict)


def draft_onnx(path: Path, wishes: Wishes, scratch: Path) -> Draft:
    """Propose the card of an ONNX file.

    Args:
        path: of the file.
        wishes: of its owner, who is always right.
        scratch: folder for the label file, where the labels are noted in the ONNX file.

    Raises:
        ExportError: naming what the file lacks, or what has to be said because the file does not say it.
        CardError: the label file is missing or has an empty line.
    """
    graph = inspect(path, wishes.layout)
    noted = graph.notes.task(path)
    (height, width), why_size = _size(graph, wishes)
    answers = graph.answers(height, width)
    task, why_task = _task(graph, wishes, answers, noted)
    instances = task == "segment" and any(answer.ndim == 3 for answer in answers.values())
    family = "yolo_onnx" if task == "detect" or instances else "onnx"
    output, why_output = _output(graph, wishes, "detect" if instances else task, answers)
    possible = _classes(graph, task, answers, output, (height, width))
    labels, why_labels = _labels(graph, wishes, task, possible, f"{output!r} {list(answers[output].shape)}", scratch)
    classes = read_labels(labels)
    options: dict[str, str | int | float | bool] = {"output": output} if len(answers) > 1 else {}
    if graph.layout == "nhwc":
        options["channels_last"] = True
    if task == "classify" and _is_softmax(answers[output]):
        options["probabilities"] = True
    if family == "yolo_onnx" and graph.layout == "nhwc":
        raise ExportError(f"{path}: takes [N, H, W, C]; export the detector with its channels first, [N, 3, H, W]")
    recipe, why_recipe = _recipe(graph, wishes, task, height, width)
    candidates, why_candidates = onnx_pixels(graph, wishes, family)
    kind = "probabilities" if "probabilities" in options else "raw scores"
    if family == "yolo_onnx":
        table = graph.answered(output, inputs(recipe, wishes.photos), next(iter(candidates.values())))
        options["layout"], known = choose_layout(
            table, len(classes), _masks(answers), (height, width), graph.notes, path
        )
        kind = f"{options['layout']} ({known})"
    licence, why_licence = _licence(graph, wishes)
    if labels == "salient":
        kind = "opacity"
    facts = [
        Fact("task", task, why_task),
        Fact("input", f"{graph.layout.upper()}, {width} x {height} pixels, {graph.channels} channels", why_size),
        Fact("resize", recipe.resize + (f", short side {recipe.short_side}" if recipe.short_side else ""), why_recipe),
        Fact("pixels", " or ".join(candidates), why_candidates),
        Fact("output", f"{output!r} {list(answers[output].shape)}, {kind}", why_output),
        Fact("labels", shown_names(classes), why_labels),
        Fact("licence", f"{licence.weights} (weights), {licence.code} (code)", why_licence),
    ]
    sources = own_graph(path)
    facts += where_weights_are(sources)
    card = ModelCard(
        name=wishes.name,
        version="1",
        task=task,
        family=family,
        title=f"{path.name}, {len(classes)} classes",
        labels=labels,
        licence=licence,
        recipe=recipe,
        sources=sources,
        normalise=next(iter(candidates.values())),
        options=options,
        tolerance={"scores": 1e-3} if family == "yolo_onnx" else 1e-3,
    )
    return Draft(card, classes, facts, candidates)


def own_file(path: Path) -> Source:
    """Point at a file where it lies."""
    return Source(file=str(path.absolute()), sha256=sha256_of(path), size=path.stat().st_size)


def own_graph(path: Path) -> dict[str, Source]:
    """Point at an ONNX file where it lies, and at the files beside it in which it keeps weights.

    Raises:
        ExportError: one of them cannot be taken.
    """
    return {name: own_file(file) for name, file in ({"weights": path} | find_data_files(path)).items()}


def where_weights_are(sources: Mapping[str, Source]) -> list[Fact]:
    """Say in a line which files beside an ONNX file hold its weights, where any do."""
    names = [Path(source.file or "").name for name, source in sources.items() if name.startswith("data")]
    return [Fact("weights", f"in {', '.join(names)}; joined into one file", "the file")] if names else []


def _size(graph: Graph, wishes: Wishes) -> tuple[tuple[int, int], str]:
    built_in = (graph.height, graph.width)
    noted = graph.notes.size
    if wishes.size is not None:
        if any(own not in {None, wish} for own, wish in zip(built_in, wishes.size, strict=True)):
            raise ExportError(
                f"{graph.path}: its input is {graph.width} x {graph.height} pixels, so --size cannot be "
                f"{wishes.size[1]}x{wishes.size[0]}: leave it out"
            )
        return wishes.size, "given"
    if graph.height is not None and graph.width is not None:
        return (graph.height, graph.width), "the file"
    if noted is not None:
        return noted, "the file's note `imgsz`"
    raise ExportError(
        f"{graph.path}: takes pictures of any size, but a served graph has one: say which it was trained for, "
        "such as --size 224 or --size 640x384 (width x height)"
    )


def _task(graph: Graph, wishes: Wishes, answers: Answers, noted: Task | None) -> tuple[Task, str]:
    ranks = {answer.ndim for answer in answers.values()}
    if wishes.task is not None and wishes.task != "tensors":
        return wishes.task, "given"
    if noted is not None:
        return noted, "the file's notes"
    if ranks == {2}:
        return "classify", "assumed: its outputs are [N, C]"
    if ranks == {3}:
        return "detect", "assumed: its outputs are [N, ., .]"
    if ranks <= {3, 4}:
        return "segment", "assumed: it has an output [N, ., h, w]"
    raise ExportError(f"{graph.path}: its outputs are {_listed(answers)}: say --task classify, detect or segment")


def _output(graph: Graph, wishes: Wishes, task: Task, answers: Answers) -> tuple[str, str]:
    rank, form = {"classify": (2, "[N, C]"), "detect": (3, "all boxes [N, ., .]"), "segment": (4, "[N, C, h, w]")}[task]
    known = [name for name, answer in answers.items() if answer.ndim == rank]
    if wishes.output is not None:
        if wishes.output not in known:
            raise ExportError(
                f"{graph.path}: --output is {wishes.output!r}, but a model that can {task} answers {form}; "
                f"its outputs are {_listed(answers)}"
            )
        return wishes.output, "given"
    if not known:
        raise ExportError(
            f"{graph.path}: a model that can {task} answers {form}, but its outputs are {_listed(answers)}. "
            "Say another --task, or export the network with its head"
        )
    if len(known) > 1:
        raise ExportError(
            f"{graph.path}: which of its outputs is the answer? There are {_listed(answers)}: say --output {known[0]}, "
            "or another"
        )
    return known[0], "the only one" if len(answers) == 1 else "the only one of its form"


def _labels(
    graph: Graph, wishes: Wishes, task: Task, counts: tuple[int, ...], output: str, scratch: Path
) -> tuple[str, str]:
    """Return the labels as a card names them; they are as many as `counts` allows, where that says anything."""
    if wishes.labels is not None:
        labels, known = wishes.labels, "given"
    elif noted := graph.notes.names:
        labels, known = write_names(noted, scratch, wishes.name), "the file's note `names`"
    elif graph.notes.unread_names:
        raise ExportError(
            f"{graph.path}: its note `names` is {graph.notes.unread_names}, from which no class names can be read: "
            "--labels names.txt, one name per line"
        )
    elif task == "segment" and counts == (2,):
        return "salient", "assumed: one channel is the opacity of an object"
    elif usual := next((usual for count in counts if (usual := _USUAL_LABELS.get((task, count)))), None):
        return usual, f"assumed: {usual} has as many"
    else:
        number = f"{counts[0]} " if counts else ""
        raise ExportError(
            f"{graph.path}: the {number}classes of {output} need names: --labels names.txt, one name per line"
        )
    found = len(read_labels(labels))
    if counts and found not in counts:
        expected = " or ".join(map(str, counts))
        hint = ""
        if task == "segment" and counts == (2,):
            hint = (
                ": one channel is the opacity of an object, which needs the names of the background and of the object"
            )
        raise ExportError(f"{labels} has {found} labels, but the output {output} has {expected} classes{hint}")
    return labels, known


def _classes(graph: Graph, task: Task, answers: Answers, output: str, size: tuple[int, int]) -> tuple[int, ...]:
    """Return how many classes an output can be of, the likeliest first; none where its shape does not tell."""
    shape = answers[output].shape
    if task == "classify":
        return (shape[1],)
    if len(shape) == 4:
        return (2 if shape[1] == 1 else shape[1],)
    return counts(shape, _masks(answers), size, graph.notes)


def _masks(answers: Answers) -> int:
    """Return how many coefficients an instance has: one for each of the prototypes [N, masks, h, w]."""
    return next((answer.shape[1] for answer in answers.values() if answer.ndim == 4), 0)


def _recipe(graph: Graph, wishes: Wishes, task: Task, height: int, width: int) -> tuple[Recipe, str]:
    usual = {"classify": "crop", "detect": "letterbox", "segment": "stretch"}[task]
    if task == "segment" and graph.notes.of_ultralytics:
        usual = "letterbox"
    if graph.notes.rt_detr:
        usual = "stretch"
    resize, short_side = wishes.resize or usual, None
    if resize == "crop":
        short_side = max(height, width) if graph.notes.of_ultralytics else round(max(height, width) / 0.875)
    known = "given" if wishes.resize else f"assumed: usual for {'RT-DETR' if graph.notes.rt_detr else task}"
    return Recipe(height, width, resize, short_side=short_side), known  # type: ignore[arg-type]


def _licence(graph: Graph, wishes: Wishes) -> tuple[Licence, str]:
    """What Ultralytics exports is under the AGPL, code and all, unless its owner bought another licence."""
    if graph.notes.of_ultralytics or "AGPL-3.0" in graph.notes.noted.get("license", ""):
        return Licence(AGPL, wishes.licence or AGPL), "Ultralytics' notes in the file"
    if wishes.licence is None:
        raise ExportError(
            f"{graph.path}: under which licence are its weights? The file does not say: --license MIT, another SPDX "
            "identifier, or LicenseRef-own where they are yours"
        )
    return Licence(wishes.licence, wishes.licence), "given"


def _is_softmax(answer: npt.NDArray[np.float32]) -> bool:
    return bool(answer.min() >= 0 and np.allclose(answer.sum(1), 1, atol=1e-3))


def _listed(answers: Answers) -> str:
    return ", ".join(f"{name!r} {list(answer.shape)}" for name, answer in answers.items())
