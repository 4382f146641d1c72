"""The card of an ONNX file that is served as it is: tensors in, tensors out. `export.importer.adding` calls it."""

from pathlib import Path

from export.importer.draft import Draft, Finding, choose_licence, own_file, own_graph, where_weights_are
from export.importer.options import ImportOptions
from export.onnx_file.external import find_data_files
from export.tensor_graph import read_graph
from export.ultralytics.notes import Notes
from zoo.model_card import TensorCard
from zoo.served_card import Tensor


def draft_tensors(path: Path, stated: ImportOptions, sample: Path | None) -> Draft:
    """Propose the card of an ONNX file of which only the inputs and outputs matter.

    Args:
        path: of the file.
        stated: by the user.
        sample: `.npz` with real inputs, for the check that it answers alike where it is served.

    Raises:
        ExportError: it does not run here, has no batch dimension, or its licence is not said.
    """
    graph = read_graph(path, find_data_files(path).values())
    notes = Notes(dict(graph.session.get_modelmeta().custom_metadata_map))
    licence, why_licence = choose_licence(path, notes, stated)
    sources = own_graph(path) | ({"sample": own_file(sample)} if sample else {})
    findings = [
        Finding("task", "tensors", "given"),
        *(Finding(f"input {x.name}", _in_words(x), "the file") for x in graph.inputs),
        *(Finding(f"output {x.name}", _in_words(x), "the file") for x in graph.outputs),
        *where_weights_are(sources),
        Finding(
            "checked on", "your sample" if sample else "noise", "given" if sample else "--sample gives real inputs"
        ),
        Finding("licence", f"{licence.weights} (weights), {licence.code} (code)", why_licence),
    ]
    card = TensorCard(
        name=stated.name,
        version="1",
        task="tensors",
        title=f"{path.name}, tensors",
        licence=licence,
        sources=sources,
    )
    return Draft(card, (), findings)


def _in_words(tensor: Tensor) -> str:
    sides = ["?" if side is None else str(side) for side in tensor.shape[1:]]
    return f"{tensor.dtype} [{', '.join(['N', *sides])}]"
