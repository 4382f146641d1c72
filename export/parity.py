"""How far ONNX Runtime's answers are from the reference's on real photos. `export.pipeline` asks before publishing."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from export.batch import check_batch
from export.reference import Images, Outputs
from zoo.errors import ExportError
from zoo.model_card import TOLERANCES, AnyCard, ModelCard
from zoo.served_card import CPU, Parity

Run = Callable[[Images], Outputs]
BATCHES = (1, 3, 8)
LOGITS = "logits"
_TOLERANCE = 1e-4  # of what `TOLERANCES` does not name
_WHOLE = ("scores", "prototypes")  # compared in the order of the output, unlike candidates
_NO_COUNTERPART = "; `inf` says that a candidate has no counterpart of its class with a score within the tolerance"
_LOWEST_SCORE = 0.05  # candidates below it are noise: their scores are compared, their boxes are not


def measure(
    card: ModelCard,
    model: Path,
    reference: str,
    images: Images,
    expected: Sequence[Outputs],
    *,
    provider: str = CPU,
) -> Parity:
    """Compare an ONNX file in ONNX Runtime with the reference on real images, at batch sizes 1, 3 and 8.

    Probabilities of 0 and 1 hide what is wrong behind them, so a classifier's logits are compared, too, where the
    reference gives them.

    Args:
        card: gives the tolerances.
        model: the ONNX file.
        reference: name of the reference's runtime, for card.json.
        images: uint8 [M, H, W, 3], images after the card's recipe. Each is in at least one batch of every size.
        expected: the reference's outputs for each image alone: its neighbours in a batch must not matter. Beside the
            graph's own there may be `logits`.
        provider: of ONNX Runtime, on which the file runs.

    Raises:
        ExportError: an output differs by more than the card's tolerance, has another shape or dtype, or ONNX Runtime
            cannot run the graph.
    """
    allowed = tolerances(card, expected[0])
    worst: dict[str, float] = {}
    try:
        for run, names in _runs(model, expected[0], provider):
            for rows in (rows for size in BATCHES for rows in _rows(len(images), size)):
                actual = run(images[rows])
                wanted = {name: np.concatenate([expected[row][name] for row in rows]) for name in names}
                for name, difference in differences(wanted, actual, allowed.get("scores", _TOLERANCE)).items():
                    worst[name] = float(np.maximum(worst.get(name, 0.0), difference))  # unlike max(), keeps a NaN
    except ExportError as error:
        raise ExportError(f"{card.name}: {error}") from error
    except Exception as error:  # ONNX Runtime's errors have no common base of use
        raise ExportError(f"{card.name}: ONNX Runtime cannot run the converted graph: {error}") from error
    tolerance = {name: allowed[name] for name in worst}
    if not all(difference <= tolerance[name] for name, difference in worst.items()):
        over = ", ".join(
            f"{name} by {difference:g} (tolerance {tolerance[name]:g})"
            for name, difference in worst.items()
            if not difference <= tolerance[name]
        )
        raise ExportError(
            f"{card.name}: ONNX Runtime differs from {reference} in {over}, so nothing was published. Where that is "
            "float noise, raise `tolerance` in the card, such as `tolerance = { "
            f"{next(iter(worst))} = ... }}`{_NO_COUNTERPART if np.inf in worst.values() else ''}."
        )
    return Parity(reference=reference, tolerance=tolerance, batches=BATCHES, max_difference=worst)


def tolerances(card: AnyCard, outputs: Iterable[str]) -> dict[str, float]:
    """The card's tolerance of each output.

    Raises:
        ExportError: the card gives one for an output that there is not.
    """
    names = list(outputs)
    if not isinstance(card.tolerance, dict):
        return dict.fromkeys(names, card.tolerance)
    if unknown := card.tolerance.keys() - set(names):
        raise ExportError(f"{card.name}: `tolerance` names {min(unknown)!r}; the outputs are {', '.join(names)}")
    usual = dict.fromkeys(names, _TOLERANCE) | {k: v for k, v in TOLERANCES.items() if k in names}
    alike = {"class_scores": card.tolerance["scores"]} if "scores" in card.tolerance and "class_scores" in names else {}
    return usual | alike | card.tolerance


def _runs(model: Path, expected: Outputs, provider: str) -> Iterator[tuple[Run, list[str]]]:
    """The graph as it is, then with its logits as the only output: to show them changes how a graph is optimised."""
    own = [name for name in expected if name != LOGITS]
    session = _session(str(model), provider)
    check_batch(session)
    yield _run(session, None), own
    if LOGITS in expected:
        yield _run(_session(_with_logits(model), provider), [LOGITS]), [LOGITS]


def _session(graph: str | bytes, provider: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # a refusal is raised, it need not be printed too
    return onnxruntime.InferenceSession(graph, options, providers=list(dict.fromkeys((provider, CPU))))


def _run(session: onnxruntime.InferenceSession, names: list[str] | None) -> Run:
    wanted = names or [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(wanted, session.run(wanted, {"images": images}), strict=True))


def _with_logits(path: Path) -> bytes:
    """A classifier's graph that answers the input of its softmax."""
    model = onnx.load(path)
    source = next((node for node in model.graph.node if "probabilities" in node.output), None)
    if source is None or source.op_type != "Softmax":
        raise ExportError("the graph's `probabilities` do not come from a Softmax, so its logits cannot be compared")
    model.graph.node.append(onnx.helper.make_node("Identity", [source.input[0]], [LOGITS]))
    model.graph.ClearField("output")
    model.graph.output.append(onnx.helper.make_tensor_value_info(LOGITS, onnx.TensorProto.FLOAT, None))
    data: bytes = model.SerializeToString()
    return data


def _rows(count: int, size: int) -> Iterator[list[int]]:
    """Batches of `size` indices that run through all of `count`, starting over where the last batch is short."""
    for start in range(0, count, size):
        yield [row % count for row in range(start, start + size)]


def differences(expected: Outputs, actual: Outputs, tolerance: float) -> dict[str, float]:
    """Say how far two sets of outputs are apart, per output.

    `probabilities`, `scores` and `prototypes`: the largest absolute difference. `logits`, `activation` and
    `embedding`: the same, as a share of the largest magnitude in the image's, which may have any scale. `mask` and
    `alpha`: the share of pixels that differ. `boxes`, in input pixels, `keypoints`, `coefficients` and `class_scores`:
    between each candidate and its counterpart (see `_candidates`); infinite where there is none. `classes` are compared
    with the boxes.

    Args:
        expected: the reference's.
        actual: the graph's.
        tolerance: of scores, within which candidates are each other's counterparts.

    Raises:
        ExportError: other outputs, shapes or dtypes than expected.
    """
    if actual.keys() != expected.keys():
        raise ExportError(f"the graph has the outputs {sorted(actual)}, expected {sorted(expected)}")
    for name, want in expected.items():
        got = actual[name]
        if (got.shape, got.dtype) != (want.shape, want.dtype):
            raise ExportError(f"output {name!r} is {got.dtype}{got.shape}, expected {want.dtype}{want.shape}")
    if "boxes" in expected:
        whole = {name: _difference(name, expected[name], actual[name]) for name in expected if name in _WHOLE}
        return _candidates(expected, actual, tolerance) | whole
    return {name: _difference(name, want, actual[name]) for name, want in expected.items()}


def _difference(name: str, want: npt.NDArray[Any], got: npt.NDArray[Any]) -> float:
    if want.dtype == np.uint8:
        return float(np.mean(want != got))
    with np.errstate(invalid="ignore"):
        gaps = np.where(want == got, 0.0, np.abs(want - got))  # infinities are equal, too
    if name in ("activation", "embedding", LOGITS):
        axes = tuple(range(1, want.ndim))
        largest = np.abs(want).max(axis=axes, keepdims=True, where=np.isfinite(want), initial=0.0)
        gaps = gaps / np.maximum(largest, np.finfo(np.float32).tiny)
    return float(gaps.max())


def _candidates(expected: Outputs, actual: Outputs, tolerance: float) -> dict[str, float]:
    """Return the largest difference of a candidate's values to its counterpart's, of each output.

    Candidates whose scores tie within float noise may change places, so the counterpart is not the one of the same
    rank: it is the nearest box of the same class whose score is within `tolerance`. Of boxes that are equally near, as
    neighbouring cells answer in low precision, it is the one with the nearest coefficients.
    """
    names = [name for name in ("boxes", "keypoints", "coefficients", "class_scores") if name in expected]
    worst: dict[str, float] = dict.fromkeys(names, 0.0)
    for image, rank in np.argwhere(expected["scores"] > _LOWEST_SCORE):
        alike = np.flatnonzero(
            (actual["classes"][image] == expected["classes"][image, rank])
            & (np.abs(actual["scores"][image] - expected["scores"][image, rank]) <= tolerance)
        )
        away = {name: np.abs(actual[name][image, alike] - expected[name][image, rank]) for name in names}
        gaps = [values.max(axis=tuple(range(1, values.ndim))) for values in away.values()]
        nearest = np.lexsort(gaps[::-1])[:1]  # by boxes first
        for name, gap in zip(names, gaps, strict=True):
            worst[name] = float(np.maximum(worst[name], gap[nearest[0]] if nearest.size else np.inf))
    return worst
