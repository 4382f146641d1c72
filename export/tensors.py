"""Graphs with tensors in and tensors out, without interpretation: an ONNX file as it is, or a family's network.

`export.pipeline` calls it for cards with `task = "tensors"`. What can be proved of such a graph is that it answers
several rows together as it answers each alone, and that it still does where it is served. Where a family built it,
torch says what a row is to be answered with.
"""

import hashlib
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from torch import nn

from export.build import build_tensors
from export.convert import IMAGE, INPUT, ImageHead, ServedGraph, convert_tensors
from export.heads import Pixels
from export.onnx_file.external import data_files
from export.parity import tolerances
from export.photos import PARITY_PHOTOS, open_upright
from export.provenance import describe
from export.steps import Export, Steps
from export.tensor_graph import Graph, graph_of, read_graph
from export.tensor_rows import BYTE, INTEGERS, Tensors, noise, sampled
from zoo import catalog
from zoo.errors import ExportError
from zoo.files import sha256_of
from zoo.model_card import TensorCard
from zoo.recipe import apply_exact
from zoo.served_card import GoldenTensors, Parity, ServedTensors
from zoo.sources import fetch_all
from zoo.store import Store

BATCHES = (1, 2, 3)
GOLDEN = "tensors.npz"
_UNROLLED = 64  # rows, at most, for which a graph's operators are counted
_TRIED = (16, 64, 224)  # sizes for dimensions that are free, until the graph runs


def export_tensors(card: TensorCard, store: Store, licences: tuple[str, ...], step: Steps) -> Export:
    """Publish the ONNX file `weights`, after it answered 1, 2 and 3 rows together as each alone.

    Its batch is called `batch`, and what it declares of inner shapes is left out; its operators stay as they are.

    The rows are those of the source `sample`, an `.npz` with an array for each input, at least 3 rows long; without it
    they are noise, for floats in 0..1, for integers 0 and 1, or else 0 to 255. `options` then give the size of free
    dimensions by the names that they have in the file (`T = 20`); else 16, 64 and 224 are tried.

    Where the card's family is not `tensors`, that family builds the network: it is converted, and compared with torch
    on the family's rows.

    Raises:
        SourceError: a file could not be had.
        ExportError: not an ONNX file, no batch dimension, or other answers together than alone.
    """
    with step("fetch"):
        files = fetch_all(card.sources)
    with step("build"):
        if card.family != "tensors":
            graph, rows, alone = _converted(card, files)
            reference, real = f"torch {torch.__version__}", True
        else:
            graph, rows, alone = _published(card, files)
            reference, real = f"onnxruntime {onnxruntime.__version__}, each row alone", "sample" in files
    with step("parity"):
        allowed = tolerances(card, alone[0])
        try:
            worst = _together(card, graph, rows, alone, allowed)
        except ExportError:
            # Rows of zeros and ones are nearly constant, which normalisation blows up: more numbers decide.
            if real or not any(x.dtype in INTEGERS for x in graph.inputs):
                raise
            rows, alone = _answered(card, graph, None, BYTE)
            worst = _together(card, graph, rows, alone, allowed)
    with step("publish"):
        golden = _npz({f"in/{name}": value for name, value in rows.items()} | _joined(alone))
        served = ServedTensors(
            name=card.name,
            version=card.version,
            task="tensors",
            family=card.family,
            title=card.title,
            homepage=card.homepage,
            licence=card.licence,
            inputs=graph.inputs,
            outputs=graph.outputs,
            recipe=card.recipe,
            precision=graph.precision,
            opset=graph.opset,
            sha256=hashlib.sha256(graph.joined).hexdigest() if graph.joined else sha256_of(graph.path),
            size=len(graph.joined) or graph.path.stat().st_size,
            provenance=describe(card, files, {}),
            parity=Parity(reference, allowed, BATCHES, worst),
            golden=GoldenTensors(GOLDEN, hashlib.sha256(golden).hexdigest(), real),
            task_default=card.task_default,
            pinned=card.pinned,
            accepted=licences,
        )
        target = store.publish(served, {"model.onnx": graph.joined or graph.path, f"golden/{GOLDEN}": golden})
    return Export(served, target, step.seconds)


def _with_pixels(card: TensorCard, network: nn.Module) -> nn.Module:
    return ServedGraph(Pixels(card.normalise), network, ImageHead()).eval()


def _published(card: TensorCard, files: dict[str, Path]) -> tuple[Graph, Tensors, list[Tensors]]:
    """Return the graph of the source `weights`, rows, and its own answers to each alone."""
    data = data_files(files)
    if unknown := [name for name, file in files.items() if name not in {"weights", "sample"} and file not in data]:
        raise ExportError(
            f"{card.name}: a card of tensors has the sources `weights`, `data` and `sample`, not {unknown}"
        )
    graph = read_graph(files["weights"], data)
    return graph, *_answered(card, graph, files.get("sample"))


def _converted(card: TensorCard, files: dict[str, Path]) -> tuple[Graph, Tensors, list[Tensors]]:
    """Return the graph of a family's network, the family's rows, and torch's answers to each alone."""
    network = build_tensors(card, files)
    if card.recipe is not None:
        photos = [open_upright(catalog.sample(name)) for name in PARITY_PHOTOS]
        rows = network.rows or {INPUT: np.stack([apply_exact(card.recipe, photo) for photo in photos])}
        network = replace(network, module=_with_pixels(card, network.module), rows=rows)
    rows = network.rows
    with torch.inference_mode():
        alone = [
            {name: value.numpy() for name, value in network.module(**one).items()}
            for one in ({k: torch.from_numpy(v[i : i + 1]) for k, v in rows.items()} for i in range(_count(rows)))
        ]
    model = convert_tensors(card, network, list(alone[0]))
    return graph_of(model, Path(f"{card.name}.onnx"), model.SerializeToString()), rows, alone


def _answered(card: TensorCard, graph: Graph, sample: Path | None, integers: int = 2) -> tuple[Tensors, list[Tensors]]:
    """Return rows and the graph's answers to each alone."""
    if sample is not None:
        rows = sampled(graph.inputs, sample)
        try:
            return rows, _one_by_one(graph, rows)
        except Exception as error:  # ONNX Runtime's errors have no common base of use
            raise ExportError(f"{card.name}: the graph does not run on the rows of {sample}: {error}") from error
    if graph.suppresses:
        raise ExportError(
            f"{card.name}: the graph suppresses boxes itself, and in noise there are none, so noise cannot show "
            "whether rows stay independent in a batch: give the source `sample` real inputs (.npz), `add` with --sample"
        )
    named = {name for axes in graph.free.values() for axis, name in axes.items() if axis}
    if unknown := card.options.keys() - named:
        known = ", ".join(sorted(named)) or "none"
        raise ExportError(f"{card.name}: the graph has no free dimension {min(unknown)!r}; those that it has: {known}")
    failure: Exception | None = None
    for size in _TRIED if named - card.options.keys() else _TRIED[:1]:
        rows = noise(graph.inputs, graph.free, {name: int(card.options.get(name, size)) for name in named}, integers)
        try:
            return rows, _one_by_one(graph, rows)
        except Exception as error:  # ONNX Runtime's errors have no common base of use
            failure = error
    raise ExportError(
        f"{card.name}: the graph does not run on noise: {failure}. Give `options` the sizes of its free dimensions "
        f"({', '.join(sorted(named)) or 'it has none'}), or the source `sample` real inputs (.npz)"
    )


def _run(graph: Graph, rows: Tensors) -> Tensors:
    names = [output.name for output in graph.outputs]
    feeds = {name: value.astype(object) if value.dtype.kind == "U" else value for name, value in rows.items()}
    answers = dict(zip(names, graph.session.run(names, feeds), strict=True))
    return {name: value.astype(str) if value.dtype.kind == "O" else value for name, value in answers.items()}


def _one_by_one(graph: Graph, rows: Tensors) -> list[Tensors]:
    return [_run(graph, {name: value[i : i + 1] for name, value in rows.items()}) for i in range(_count(rows))]


def _count(rows: Tensors) -> int:
    return len(next(iter(rows.values())))


def _joined(alone: list[Tensors]) -> Tensors:
    return {f"out/{name}": np.concatenate([one[name] for one in alone]) for name in alone[0]}


def _together(
    card: TensorCard, graph: Graph, rows: Tensors, alone: list[Tensors], allowed: dict[str, float]
) -> dict[str, float]:
    """Return the largest difference of an answer in a batch to the row's own, per output, as `differences` has it."""
    worst = dict.fromkeys((output.name for output in graph.outputs), 0.0)
    try:
        for batch in _batches(len(alone), graph.suppresses):
            answers = _run(graph, {name: value[batch] for name, value in rows.items()})
            for name, got in answers.items():
                want = np.concatenate([alone[row][name] for row in batch])
                worst[name] = float(np.maximum(worst[name], _difference(name, want, got)))
    except Exception as error:  # ONNX Runtime's errors have no common base of use
        raise ExportError(f"{card.name}: the graph does not run on several rows: {error}") from error
    if not all(difference <= allowed[name] for name, difference in worst.items()):
        raise ExportError(
            f"{card.name}: several rows together are answered otherwise than each alone, by {worst}, over the card's "
            f"tolerance of {allowed}, so nothing was published. The batch must be the first dimension of "
            "every input and output, and the rows must not know each other"
        )
    return worst


def _batches(count: int, suppresses: int) -> Iterator[list[int]]:
    """Batches in which each of `count` rows is at every place; one has more rows than a graph suppresses boxes for."""
    for size in sorted({*BATCHES, min(suppresses, _UNROLLED) + 1}):
        for start in range(count):
            yield [row % count for row in range(start, start + size)]


def _difference(name: str, want: npt.NDArray[Any], got: npt.NDArray[Any]) -> float:
    """The largest difference as a share of the largest magnitude; of what is no float, the share that differs.

    Of an image, whose values are rounded, the mean difference as a share of 255.
    """
    if want.shape != got.shape:
        return float("inf")
    if name == IMAGE and want.dtype == np.uint8:
        return float(np.abs(want.astype(np.int16) - got).mean()) / 255
    if want.dtype.kind != "f":
        return float(np.mean(want != got)) if want.size else 0.0
    if not np.array_equal(np.isfinite(want), np.isfinite(got)):
        return float("inf")
    wanted, found = (np.nan_to_num(x.astype(np.float64)) for x in (want, got))
    largest = float(np.abs(wanted).max(initial=0.0))
    return float(np.abs(wanted - found).max(initial=0.0)) / max(largest, float(np.finfo(np.float32).tiny))


def _npz(arrays: Tensors) -> bytes:
    data = io.BytesIO()
    np.savez(data, **arrays)  # type: ignore[arg-type]  # its stub takes the first for `allow_pickle`
    return data.getvalue()
