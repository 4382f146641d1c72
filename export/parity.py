"""How far ONNX Runtime's answers are from the reference's on real photos. `export.pipeline` asks before publishing."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from export.reference import Images, Outputs
from zoo.card import ModelCard, Parity
from zoo.errors import ExportError

BATCHES = (1, 3, 8)
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
            f"{card.tolerance:g}, so nothing was published. Where that is float noise, raise `tolerance` in the card."
        )
    return Parity(reference=reference, tolerance=card.tolerance, batches=BATCHES, max_difference=worst)


def _rows(count: int, size: int) -> Iterator[list[int]]:
    """Batches of `size` indices that run through all of `count`, starting over where the last batch is short."""
    for start in range(0, count, size):
        yield [row % count for row in range(start, start + size)]


def differences(expected: Outputs, actual: Outputs, tolerance: float) -> dict[str, float]:
    """Say how far two sets of outputs are apart, per output.

    `probabilities` and `scores`: the largest absolute difference. `mask` and `alpha`: the share of pixels that differ.
    `boxes`: in input pixels, between each candidate and its counterpart (see `_boxes`); infinite where there is none.
    `classes` are compared with the boxes.

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
        scores = float(np.abs(expected["scores"] - actual["scores"]).max())
        return {"boxes": _boxes(expected, actual, tolerance), "scores": scores}
    return {
        name: float(np.mean(want != actual[name]) if want.dtype == np.uint8 else np.abs(want - actual[name]).max())
        for name, want in expected.items()
    }


def _boxes(expected: Outputs, actual: Outputs, tolerance: float) -> float:
    """Return the largest coordinate difference of a candidate to its counterpart, in input pixels.

    Candidates whose scores tie within float noise may change places, so the counterpart is not the one of the same
    rank: it is the nearest box of the same class whose score is within `tolerance`.
    """
    worst = 0.0
    for image, rank in np.argwhere(expected["scores"] > _LOWEST_SCORE):
        alike = (actual["classes"][image] == expected["classes"][image, rank]) & (
            np.abs(actual["scores"][image] - expected["scores"][image, rank]) <= tolerance
        )
        gaps = np.abs(actual["boxes"][image][alike] - expected["boxes"][image, rank]).max(axis=1)
        worst = float(np.maximum(worst, gaps.min(initial=np.inf)))
    return worst
