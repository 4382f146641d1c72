"""How far ONNX Runtime's answers are from the reference's on real photos. `export.pipeline` asks before publishing."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from export.reference import Images, Outputs
from zoo.card import ModelCard, Parity
from zoo.errors import ExportError

BATCHES = (1, 3, 8)
_WHOLE = ("scores", "prototypes")  # beside candidates, what is compared as it lies
_NO_COUNTERPART = "; `inf` says that a candidate has no counterpart of its class with a score within the tolerance"
_LOWEST_SCORE = 0.05  # candidates below it are noise: their scores are compared, their boxes are not


def measure(card: ModelCard, model: Path, reference: str, images: Images, expected: Sequence[Outputs]) -> Parity:
    """Compare an ONNX file in ONNX Runtime with the reference on real pictures, at batch sizes 1, 3 and 8.

    Args:
        card: gives the tolerance.
        model: the ONNX file.
        reference: name of the reference's runtime, for card.json.
        images: uint8 [M, H, W, 3], pictures after the card's recipe. Each is in at least one batch of every size.
        expected: the reference's outputs for each picture alone: its neighbours in a batch must not matter.

    Raises:
        ExportError: an output differs by more than the card's tolerance, has another shape or dtype, or ONNX Runtime
            cannot run the graph.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # a refusal is raised, it need not be printed too
    worst: dict[str, float] = {}
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        for rows in (rows for size in BATCHES for rows in _rows(len(images), size)):
            actual = dict(zip(names, session.run(names, {"images": images[rows]}), strict=True))
            wanted = {name: np.concatenate([expected[row][name] for row in rows]) for name in expected[0]}
            for name, difference in differences(wanted, actual, card.tolerance).items():
                worst[name] = float(np.maximum(worst.get(name, 0.0), difference))  # unlike max(), keeps a NaN
    except ExportError as error:
        raise ExportError(f"{card.name}: {error}") from error
    except Exception as error:  # ONNX Runtime's errors have no common base of use
        raise ExportError(f"{card.name}: ONNX Runtime cannot run the converted graph: {error}") from error
    if not all(difference <= card.tolerance for difference in worst.values()):
        raise ExportError(
            f"{card.name}: ONNX Runtime differs from {reference} by {worst}, over the card's tolerance of "
            f"{card.tolerance:g}, so nothing was published. Where that is float noise, raise `tolerance` in the card"
            f"{_NO_COUNTERPART if np.inf in worst.values() else ''}."
        )
    return Parity(reference=reference, tolerance=card.tolerance, batches=BATCHES, max_difference=worst)


def _rows(count: int, size: int) -> Iterator[list[int]]:
    """Batches of `size` indices that run through all of `count`, starting over where the last batch is short."""
    for start in range(0, count, size):
        yield [row % count for row in range(start, start + size)]


def differences(expected: Outputs, actual: Outputs, tolerance: float) -> dict[str, float]:
    """Say how far two sets of outputs are apart, per output.

    `probabilities`, `scores` and `prototypes`: the largest absolute difference. `activation`: the same, as a share of
    the largest magnitude in the picture's map, which may have any scale. `mask` and `alpha`: the share of pixels that
    differ. `boxes`, in input pixels, and `coefficients`: between each candidate and its counterpart (see
    `_candidates`); infinite where there is none. `classes` are compared with the boxes.

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
    gaps = np.abs(want - got)
    if name == "activation":
        largest = np.abs(want).max(axis=(1, 2), keepdims=True)
        gaps = gaps / np.maximum(largest, np.finfo(np.float32).tiny)
    return float(gaps.max())


def _candidates(expected: Outputs, actual: Outputs, tolerance: float) -> dict[str, float]:
    """Return the largest difference of a candidate's box, and of its coefficients, to its counterpart's.

    Candidates whose scores tie within float noise may change places, so the counterpart is not the one of the same
    rank: it is the nearest box of the same class whose score is within `tolerance`.
    """
    worst: dict[str, float] = {name: 0.0 for name in ("boxes", "coefficients") if name in expected}
    for image, rank in np.argwhere(expected["scores"] > _LOWEST_SCORE):
        alike = np.flatnonzero(
            (actual["classes"][image] == expected["classes"][image, rank])
            & (np.abs(actual["scores"][image] - expected["scores"][image, rank]) <= tolerance)
        )
        gaps = np.abs(actual["boxes"][image, alike] - expected["boxes"][image, rank]).max(axis=1)
        counterpart = alike[gaps.argmin()] if len(alike) else None
        for name, so_far in worst.items():
            gap = np.inf
            if counterpart is not None:
                gap = np.abs(actual[name][image, counterpart] - expected[name][image, rank]).max()
            worst[name] = float(np.maximum(so_far, gap))
    return worst
