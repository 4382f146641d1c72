"""Class names of a file: who names them, as a label file, and in a line of the report."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from export.importer.beside import Beside
from export.importer.graph import Graph
from export.importer.options import ImportOptions
from zoo.card import Task
from zoo.errors import ExportError
from zoo.labels import read_labels

_USUAL_LABELS = {("classify", 1000): "imagenet1k", ("detect", 80): "coco80", ("segment", 21): "voc21"}

_SHOWN = 30  # letters of a name


def write_names(names: Sequence[str], folder: Path, stem: str) -> str:
    """Write class names into a folder; return the file's path. It is JSON where lines of text cannot hold each name."""
    plain = all(name.strip() and not set(name) & {"\n", "\r"} for name in names) and not names[0].startswith("\ufeff")
    path = folder / f"{stem}.{'txt' if plain else 'json'}"
    path.write_bytes("".join(f"{name}\n" for name in names).encode() if plain else msgspec.json.encode(names))
    return str(path)


def shown_names(names: Sequence[str]) -> str:
    """Return how many names there are, and the first of them, in one line."""
    first = (name.strip() if name.isprintable() else repr(name)[1:-1] for name in names[:3])
    cut = (name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..." for name in first)
    return f"{len(names)}: {', '.join(name or repr(name) for name in cut)}{', ...' if len(names) > 3 else ''}"


def choose_labels(
    graph: Graph, stated: ImportOptions, beside: Beside, task: Task, counts: tuple[int, ...], output: str, scratch: Path
) -> tuple[str, str]:
    """Return the labels as a card names them, and how they are known; as many as `counts` allows, where it says any.

    Raises:
        ExportError: nobody names the classes, or other labels are stated than there are classes.
    """
    if stated.labels is not None:
        labels, known = stated.labels, "given"
    elif noted := graph.notes.names:
        labels, known = write_names(noted, scratch, stated.name), "the file's note `names`"
    elif graph.notes.unread_names:
        raise ExportError(
            f"{graph.path}: its note `names` is {graph.notes.unread_names}, from which no class names can be read: "
            "--labels names.txt, one name per line"
        )
    elif beside.labels and (not counts or len(beside.labels) in counts):
        labels, known = write_names(beside.labels, scratch, stated.name), beside.known_from
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
