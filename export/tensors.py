"""Any ONNX graph, published as it is: tensors in, tensors out, without interpretation.

`export.pipeline` calls it for cards with `task = "tensors"`. What can be proved of such a graph is that it answers
several rows together as it answers each alone, and that it still does where it is served.
"""

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnx import ModelProto, TensorProto

from export.batch import check_batch, declare_free, name_batch
from export.onnx_file.batch import suppresses
from export.onnx_file.external import data_files, join, load
from export.onnx_file.reading import open_session
from export.parity import tolerances
from export.provenance import describe
from export.steps import Export, Steps
from export.tensor_rows import BYTE, INTEGERS, Tensors, noise, sampled
from zoo.card import DType
from zoo.errors import ExportError
from zoo.files import sha256_of
from zoo.model_card import TensorCard
from zoo.served_card import GoldenTensors, Parity, Precision, ServedTensors, Tensor
from zoo.sources import fetch_all
from zoo.store import Store

BATCHES = (1, 2, 3)
GOLDEN = "tensors.npz"
_UNROLLED = 64  # rows, at most, for which a graph's operators are counted
_TRIED = (16, 64, 224)  # sizes for dimensions that are free, until the graph runs
_DTYPES: Mapping[str, DType] = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(string)": "string",
} | {
    f"tensor({name})": name
    for name in ("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")
}  # type: ignore[assignment]  # each of them is a DType


class Graph(NamedTuple):
    """An ONNX file with a batch dimension.

    Attributes:
        joined: the file with the weights that it keeps in others, and with its batch called `batch`; empty where the
            file itself is so already.
        free: names of the free dimensions besides the batch, as the file calls them, by input.
        suppresses: how many operators suppress boxes in it; exporters write one for each row that they were shown.
    """

    path: Path
    joined: bytes
    session: onnxruntime.InferenceSession
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    free: dict[str, dict[int, str]]
    opset: int
    precision: Precision
    suppresses: int


def export_tensors(card: TensorCard, store: Store, licences: tuple[str, ...], step: Steps) -> Export:
    """Publish the ONNX file `weights`, after it answered 1, 2 and 3 rows together as each alone.

    Its batch is called `batch`, and what it declares of inner shapes is left out; its operators stay as they are.

    The rows are those of the source `sample`, an `.npz` with an array for each input, at least 3 rows long; without it
    they are noise, for floats in 0..1, for integers 0 and 1, or else 0 to 255. `options` then give the size of free
    dimensions by the names that they have in the file (`T = 20`); else 16, 64 and 224 are tried.

    Raises:
        SourceError: a file could not be had.
        ExportError: not an ONNX file, no batch dimension, or other answers together than alone.
    """
    with step("fetch"):
        files = fetch_all(card.sources)
    with step("build"):
        data = data_files(files)
        if unknown := [name for name, file in files.items() if name not in {"weights", "sample"} and file not in data]:
            raise ExportError(
                f"{card.name}: a card of tensors has the sources `weights`, `data` and `sample`, not {unknown}"
            )
        graph = read_graph(files["weights"], data)
        rows, alone = _answered(card, graph, files.get("sample"))
    with step("parity"):
        allowed = tolerances(card, alone[0])
        try:
            worst = _together(card, graph, rows, alone, allowed)
        except ExportError:
            # Rows of zeros and ones are nearly constant, which normalisation blows up: more numbers decide.
            if "sample" in files or not any(x.dtype in INTEGERS for x in graph.inputs):
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
            precision=graph.precision,
            opset=graph.opset,
            sha256=hashlib.sha256(graph.joined).hexdigest() if graph.joined else sha256_of(graph.path),
            size=len(graph.joined) or graph.path.stat().st_size,
            provenance=describe(card, files, {}),
            parity=Parity(f"onnxruntime {onnxruntime.__version__}, each row alone", allowed, BATCHES, worst),
            golden=GoldenTensors(GOLDEN, hashlib.sha256(golden).hexdigest(), "sample" in files),
            task_default=card.task_default,
            pinned=card.pinned,
            accepted=licences,
        )
        target = store.publish(served, {"model.onnx": graph.joined or graph.path, f"golden/{GOLDEN}": golden})
    return Export(served, target, step.seconds)


def read_graph(path: Path, data: Iterable[Path] = ()) -> Graph:
    """Read an ONNX file, with the weights that it keeps in the files `data`.

    Raises:
        ExportError: not one that runs here, weights in a file that is not named, a tensor without a batch dimension, or
            of a type that cannot be sent.
    """
    model = load(path)
    joined = b""
    fixed = declare_free(model)
    if join(model, path, data) | name_batch(model) | bool(fixed):
        joined = model.SerializeToString()
    try:
        session = open_session(joined or path)
    except Exception as error:  # protobuf and ONNX Runtime raise errors of many kinds
        raise ExportError(f"{path}: not an ONNX file that can be run: {error}") from error
    try:
        check_batch(session)
    except ExportError as error:
        built_in = f"its batch of {fixed} is built in: " if fixed else ""
        raise ExportError(f"{path}: {built_in}{error}") from error
    inputs = tuple(_described(path, x) for x in session.get_inputs())
    outputs = tuple(_described(path, x) for x in session.get_outputs())
    free = {
        x.name: {
            axis: str(side or f"{x.name}.{axis}") for axis, side in enumerate(x.shape) if not isinstance(side, int)
        }
        for x in session.get_inputs()
    }
    opset = next((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), 0)
    return Graph(path, joined, session, inputs, outputs, free, opset, _precision(model), suppresses(model))


def _described(path: Path, node: Any) -> Tensor:
    """Put an input or output of a session into the card's terms."""
    if node.type not in _DTYPES:
        known = ", ".join(_DTYPES.values())
        raise ExportError(f"{path}: {node.name!r} is a {node.type}, which cannot be sent; expected one of {known}")
    return Tensor(node.name, _DTYPES[node.type], tuple(x if isinstance(x, int) else None for x in node.shape))


def _precision(model: ModelProto) -> Precision:
    """Say in which precision most of the weights are."""
    sizes: dict[Precision, int] = {"fp32": 0, "fp16": 0, "int8": 0}
    kinds: dict[int, Precision] = {TensorProto.FLOAT16: "fp16", TensorProto.INT8: "int8", TensorProto.UINT8: "int8"}
    for weights in model.graph.initializer:
        sizes[kinds.get(weights.data_type, "fp32")] += int(np.prod(weights.dims))
    return max(sizes, key=lambda name: sizes[name])


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
    count = len(next(iter(rows.values())))
    return [_run(graph, {name: value[i : i + 1] for name, value in rows.items()}) for i in range(count)]


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
                worst[name] = float(np.maximum(worst[name], _difference(want, got)))
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


def _difference(want: npt.NDArray[Any], got: npt.NDArray[Any]) -> float:
    """The largest difference as a share of the largest magnitude; of what is no float, the share that differs."""
    if want.shape != got.shape:
        return float("inf")
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
