"""Proposes a card for an ONNX file: from what the file says and the user states; the rest is assumed.

`export.importer.adding` calls `draft_onnx`; `export.importer.trial` then chooses among the possible normalisations.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from export.families.yolo_onnx import more_of
from export.importer.beside import read_beside
from export.importer.graph import Graph, inspect
from export.importer.labels import choose_labels, shown_names
from export.importer.options import ImportOptions
from export.importer.photos import inputs
from export.importer.pixels import TO_BE_TRIED, YOLOX, onnx_pixels
from export.importer.recipes import choose_recipe, choose_size, yolox_recipe
from export.importer.rows import choose_layout, counts
from export.onnx_file.external import find_data_files
from export.ultralytics.notes import Notes
from zoo.card import Licence, Task
from zoo.errors import ExportError
from zoo.files import sha256_of
from zoo.keypoints import numbered
from zoo.labels import read_labels
from zoo.model_card import AnyCard, ModelCard, Normalise, Source

Answers = dict[str, npt.NDArray[np.float32]]
AGPL = "AGPL-3.0-only"
ROWS = ("detect", "pose", "obb")
"""Tasks of networks whose one output has a row for each box."""


class Finding(NamedTuple):
    """What was found out about one property of the model, as a row of the report.

    Attributes:
        what: name of the property, such as `task` or `resize`.
        value: as text for people.
        known_from: where the value comes from: `the file`, `given`, or `assumed: ...`.
    """

    what: str
    value: str
    known_from: str


@dataclass
class Draft:
    """A proposed card. Only its normalisation may still be open.

    Attributes:
        card: the proposal.
        labels: class names by class id; none of a graph that takes tensors.
        findings: what is known about the model, for the report.
        candidates: possible normalisations by name; where there are several, a trial chooses.
    """

    card: AnyCard
    labels: tuple[str, ...]
    findings: list[Finding]
    candidates: dict[str, Normalise] = field(default_factory=dict)


def draft_onnx(path: Path, stated: ImportOptions, scratch: Path) -> Draft:
    """Propose the card of an ONNX file.

    Args:
        path: of the file.
        stated: by the user; it overrides what the file says.
        scratch: folder for the label file, where the labels are noted in the ONNX file.

    Raises:
        ExportError: naming what the file lacks, or what has to be said because the file does not say it.
        CardError: the label file is missing or has an empty line.
    """
    graph, beside = inspect(path, stated.layout), read_beside(path)
    noted = graph.notes.task(path)
    (height, width), why_size = choose_size(graph, stated, beside)
    answers = graph.answers(height, width)
    task, why_task = _task(graph, stated, answers, noted)
    instances = task == "segment" and any(answer.ndim == 3 for answer in answers.values())
    family = "yolo_onnx" if task in ROWS or instances else "onnx"
    output, why_output = _output(graph, stated, "detect" if instances or task in ROWS else task, answers)
    possible = _classes(graph, task, answers, output, (height, width))
    labels, why_labels = choose_labels(
        graph, stated, beside, task, possible, f"{output!r} {list(answers[output].shape)}", scratch
    )
    classes = read_labels(labels)
    options: dict[str, str | int | float | bool] = {"output": output} if len(graph.session.get_outputs()) > 1 else {}
    if graph.layout == "nhwc":
        options["channels_last"] = True
    if task == "classify" and _is_softmax(answers[output]):
        options["probabilities"] = True
    _check_scores(graph, task, output, answers[output])
    if family == "yolo_onnx" and graph.layout == "nhwc":
        raise ExportError(f"{path}: takes [N, H, W, C]; export the detector with its channels first, [N, 3, H, W]")
    recipe, why_recipe = choose_recipe(graph, stated, beside, task, height, width)
    candidates, why_candidates = onnx_pixels(graph, stated, family, beside)
    kind = "probabilities" if "probabilities" in options else "raw scores"
    if family == "yolo_onnx":
        table = graph.answered(output, inputs(recipe, stated.photos), next(iter(candidates.values())))
        options["layout"], known = choose_layout(
            table, len(classes), _more(graph, task, answers), (height, width), graph.notes, path
        )
        kind = f"{options['layout']} ({known})"
        if options["layout"] == "yolox":
            if stated.resize is None and beside.resize is None:
                recipe, why_recipe = yolox_recipe(height, width), "usual for YOLOX"
            if why_candidates == TO_BE_TRIED and stated.channels is None:
                candidates, why_candidates = YOLOX, "usual for YOLOX"
    if task == "obb" and recipe.resize == "stretch":
        raise ExportError(f"{path}: `stretch` turns the angles of rotated boxes: --resize letterbox does not")
    licence, why_licence = choose_licence(path, graph.notes, stated)
    if labels == "salient":
        kind = "opacity"
    findings = [
        Finding("task", task, why_task),
        Finding("input", f"{graph.layout.upper()}, {width} x {height} pixels, {graph.channels} channels", why_size),
        Finding(
            "resize", recipe.resize + (f", short side {recipe.short_side}" if recipe.short_side else ""), why_recipe
        ),
        Finding("pixels", " or ".join(candidates), why_candidates),
        Finding("output", f"{output!r} {list(answers[output].shape)}, {kind}", why_output),
        Finding("labels", shown_names(classes), why_labels),
        Finding("licence", f"{licence.weights} (weights), {licence.code} (code)", why_licence),
    ]
    sources = own_graph(path)
    findings += where_weights_are(sources)
    card = ModelCard(
        name=stated.name,
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
        keypoints=numbered(graph.notes.points) if task == "pose" else None,
    )
    return Draft(card, classes, findings, candidates)


def own_file(path: Path) -> Source:
    """The source of a local file."""
    return Source(file=str(path.absolute()), sha256=sha256_of(path), size=path.stat().st_size)


def own_graph(path: Path) -> dict[str, Source]:
    """The sources of a local ONNX file and of the files beside it in which it keeps weights.

    Raises:
        ExportError: one of them cannot be taken.
    """
    return {name: own_file(file) for name, file in ({"weights": path} | find_data_files(path)).items()}


def where_weights_are(sources: Mapping[str, Source]) -> list[Finding]:
    """Say in a line which files beside an ONNX file hold its weights, where any do."""
    names = [Path(source.file or "").name for name, source in sources.items() if name.startswith("data")]
    return [Finding("weights", f"in {', '.join(names)}; joined into one file", "the file")] if names else []


def _task(graph: Graph, stated: ImportOptions, answers: Answers, noted: Task | None) -> tuple[Task, str]:
    ranks = {answer.ndim for answer in answers.values()}
    if stated.task is not None and stated.task != "tensors" and stated.task != "image":  # noqa: PLR1714 - mypy narrows this
        return stated.task, "given"
    if noted is not None:
        return noted, "the file's notes"
    if ranks == {2}:
        return "classify", "assumed: its outputs are [N, C]"
    if ranks == {3} and all(map(_is_sequence, answers.values())):
        raise ExportError(
            f"{graph.path}: its outputs are {_listed(answers)}: sequences of choices among classes, as recognisers of "
            "text answer them, and no boxes. That has no task here: --task tensors serves it as it is"
        )
    if ranks == {3}:
        return "detect", "assumed: its outputs are [N, ., .]"
    if ranks <= {3, 4}:
        return "segment", "assumed: it has an output [N, ., h, w]"
    raise ExportError(f"{graph.path}: its outputs are {_listed(answers)}: say --task classify, detect or segment")


def _output(graph: Graph, stated: ImportOptions, task: Task, answers: Answers) -> tuple[str, str]:
    rank, form = {"classify": (2, "[N, C]"), "detect": (3, "all boxes [N, ., .]"), "segment": (4, "[N, C, h, w]")}[task]
    known = [name for name, answer in answers.items() if answer.ndim == rank]
    if stated.output is not None:
        if stated.output not in known:
            raise ExportError(
                f"{graph.path}: --output is {stated.output!r}, but a model that can {task} answers {form}; "
                f"its outputs are {_listed(answers)}"
            )
        return stated.output, "given"
    if not known:
        raise ExportError(
            f"{graph.path}: a model that can {task} answers {form}, but its outputs are {_listed(answers)}. "
            "Say another --task, or export the network with its head"
        )
    if len(known) > 1:
        raise ExportError(
            f"{graph.path}: which of its outputs is the answer? There are {_listed(answers)}: say --output {known[0]}, "
            "or another; where they only have a meaning together, --task tensors serves them as they are"
        )
    return known[0], "the only one" if len(answers) == 1 else "the only one of its form"


def _classes(graph: Graph, task: Task, answers: Answers, output: str, size: tuple[int, int]) -> tuple[int, ...]:
    """Return how many classes an output can be of, the likeliest first; none where its shape leaves it open."""
    shape = answers[output].shape
    if task == "classify":
        return (shape[1],)
    if len(shape) == 4:
        _check_channels(graph, output, shape, size)
        return (2 if shape[1] == 1 else shape[1],)
    return counts(shape, _more(graph, task, answers), size, graph.notes)


def _check_channels(graph: Graph, output: str, shape: tuple[int, ...], size: tuple[int, int]) -> None:
    """Refuse maps [N, h, w, C]: the sides of the input are as long by each other as h and w, and not as w and C."""

    def alike(height: int, width: int) -> bool:
        return height * size[1] == width * size[0]

    if alike(*shape[1:3]) and not alike(*shape[2:]):
        raise ExportError(
            f"{graph.path}: {output!r} {list(shape)} has its classes last, expected [N, C, h, w]: convert the "
            f"network again so (`python -m tf2onnx.convert ... --outputs-as-nchw {output}`), or say "
            "--task tensors, which serves it as it is"
        )


def _more(graph: Graph, task: Task, answers: Answers) -> dict[str, int]:
    return more_of(task, _masks(answers), graph.notes.points, graph.notes)


def _masks(answers: Answers) -> int:
    """Return how many coefficients an instance has: one for each of the prototypes [N, masks, h, w]."""
    return next((answer.shape[1] for answer in answers.values() if answer.ndim == 4), 0)


def choose_licence(path: Path, notes: Notes, stated: ImportOptions) -> tuple[Licence, str]:
    """What Ultralytics exports is under the AGPL, code and all, unless its owner bought another licence."""
    if notes.of_ultralytics or "AGPL-3.0" in notes.noted.get("license", ""):
        return Licence(AGPL, stated.licence or AGPL), "Ultralytics' notes in the file"
    if stated.licence is None:
        raise ExportError(
            f"{path}: under which licence are its weights? The file does not say: --license MIT, another SPDX "
            "identifier, or LicenseRef-own where they are yours"
        )
    return Licence(stated.licence, stated.licence), "given"


def _check_scores(graph: Graph, task: Task, output: str, answer: npt.NDArray[np.float32]) -> None:
    """Refuse a classifier's scores of which no softmax makes probabilities: those of a sigmoid, or of one class."""
    if task == "classify" and (answer.shape[1] == 1 or output in graph.sigmoids):
        raise ExportError(
            f"{graph.path}: {output!r} {list(answer.shape)} holds a score for each class alone (of a sigmoid), and "
            "what is served are probabilities of classes that exclude each other. Export the network with a score for "
            "each of at least two classes, without its sigmoid; or --task tensors serves it as it is"
        )


def _is_softmax(answer: npt.NDArray[np.float32]) -> bool:
    return bool(answer.min() >= 0 and np.allclose(answer.sum(1), 1, atol=1e-3))


def _is_sequence(answer: npt.NDArray[np.float32]) -> bool:
    """Whether it is [N, T, C] with probabilities of C classes at each of T places."""
    return bool(answer.min() >= 0 and np.allclose(answer.sum(2), 1, atol=1e-3))


def _listed(answers: Answers) -> str:
    return ", ".join(f"{name!r} {list(answer.shape)}" for name, answer in answers.items())
