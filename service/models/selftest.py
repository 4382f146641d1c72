"""Tests whether a loaded model gives the same answers as its reference to the golden inputs of its folder."""

from collections.abc import Iterable, Mapping
from typing import Any

from service.engine.assembly import Run
from service.models.golden_tensors import differences, read_golden
from service.models.inputs import EncodedImage, answer_alone
from service.settings import Settings
from service.tasks import options_of
from zoo.card import Task
from zoo.served_card import AnyServed, Prediction, ServedCard

# The largest differences from the reference's answer. The fast recipe changes scores slightly, a wrong model strongly.
SCORE = 0.05
IOU = 0.85
AREA = 0.02
# The options under which golden answers were made; the threshold keeps a score that fell a little below 0.5.
_PARAMS: dict[Task, dict[str, Any]] = {
    "classify": {"top_k": 1},
    "detect": {"score_threshold": 0.4, "iou_threshold": 0.45, "max_detections": 1000},
    "segment": {"mask": "none", "score_threshold": 0.4, "iou_threshold": 0.45, "max_detections": 1000},
}
_ADVICE = "Export the model again, or report this provider's arithmetic."


class SelfTestError(Exception):
    """A model's answer to a golden input differs from its reference's."""


def self_test(card: AnyServed, files: Mapping[str, bytes], run: Run, settings: Settings) -> None:
    """Answer the golden images or tensors of a model's folder, and compare.

    Args:
        card: of the model.
        files: its golden files, by name.
        run: runs its graph.
        settings: as for a request.

    Raises:
        SelfTestError: the message has the input, the expected answer and the actual one.
    """
    if isinstance(card, ServedCard):
        _test_images(card, files, run, settings)
        return
    inputs, expected = read_golden(card, files[card.golden.file])
    if found := differences(expected, run(inputs)):
        raise SelfTestError(
            f"its answers to its golden tensors differ, as a share of the largest, by {found}. {_ADVICE}"
        )


def _test_images(card: ServedCard, files: Mapping[str, bytes], run: Run, settings: Settings) -> None:
    """Check that every golden prediction is found again; for a classifier, the first one."""
    options = options_of(card.task, _PARAMS[card.task])
    for golden in card.golden:
        image = EncodedImage(files[golden.photo], card, options, settings)
        found = answer_alone(card, run, image).predictions
        for expected in golden.predictions[:1] if card.task == "classify" else golden.predictions:
            if not any(agrees(prediction, expected) for prediction in found):
                raise SelfTestError(
                    f"on its golden photo {golden.photo} it should find {_in_words([expected])}, but it "
                    f"answered {_in_words(found[:5]) or 'nothing'}. {_ADVICE}"
                )


def agrees(found: Any, expected: Prediction) -> bool:
    """Return whether a prediction equals a golden one, within the limits above."""
    return (
        found.class_id == expected.class_id
        and (expected.score is None or abs(found.score - expected.score) <= SCORE)
        and (expected.area is None or abs(found.area - expected.area) <= AREA)
        and (expected.box is None or iou(found.box, expected.box) >= IOU)
    )


def iou(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Return the intersection over union of two boxes (left, top, right, bottom)."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / (areas - shared) if areas > shared else 0.0


def _in_words(predictions: Iterable[Any]) -> str:
    texts = []
    for prediction in predictions:
        measures = ((name, getattr(prediction, name, None)) for name in ("score", "area", "box"))
        texts.append(
            " ".join([prediction.label, *(f"{name} {value}" for name, value in measures if value is not None)])
        )
    return "; ".join(texts)
