"""Does a loaded model answer as its reference did? The golden photos of its folder go through the serving path."""

from collections.abc import Iterable
from typing import Any

from service.models.folder import AnyModel
from service.models.tensors import TensorModel
from service.predictor import Predictor
from zoo.card import Prediction, Task

# How far an answer may be from the reference's: the fast recipe moves a score a little, a wrong model moves it a lot.
SCORE = 0.05
IOU = 0.85
AREA = 0.02
# The options under which golden answers were made; the threshold lets a score that fell a little below 0.5 be seen.
_WORDS: dict[Task, dict[str, Any]] = {
    "classify": {"top_k": 1},
    "detect": {"score_threshold": 0.4},
    "segment": {"mask": "none", "score_threshold": 0.4},
}


class SelfTestError(Exception):
    """A model that answers a golden photo differently than its reference did."""


def self_test(model: AnyModel, predictor: Predictor) -> None:
    """Answer every golden photo of the model's folder and compare: every golden prediction must be found again.

    A graph that takes tensors answers its golden tensors.

    Raises:
        SelfTestError: naming the photo, what was expected and what came out.
    """
    if isinstance(model, TensorModel):
        if strange := model.differences():
            raise SelfTestError(
                f"its answers to its golden tensors differ, as a share of the largest, by {strange}. Export the model "
                "again, or report this provider's arithmetic."
            )
        return
    for golden in model.card.golden:
        found = predictor.predict(model.golden[golden.photo], model, _WORDS[model.card.task]).predictions
        for expected in golden.predictions[:1] if model.card.task == "classify" else golden.predictions:
            if not any(agrees(prediction, expected) for prediction in found):
                raise SelfTestError(
                    f"on its golden photo {golden.photo} it should find {_in_words([expected])}, but it "
                    f"answered {_in_words(found[:5]) or 'nothing'}. Export the model "
                    "again, or report this provider's arithmetic."
                )


def agrees(found: Any, expected: Prediction) -> bool:
    """Whether a typed prediction is the golden one, within the bounds above."""
    return (
        found.class_id == expected.class_id
        and (expected.score is None or abs(found.score - expected.score) <= SCORE)
        and (expected.area is None or abs(found.area - expected.area) <= AREA)
        and (expected.box is None or iou(found.box, expected.box) >= IOU)
    )


def iou(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Intersection over union of two xyxy boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / (areas - shared) if areas > shared else 0.0


def _in_words(predictions: Iterable[Any]) -> str:
    words = []
    for prediction in predictions:
        measures = ((name, getattr(prediction, name, None)) for name in ("score", "area", "box"))
        words.append(
            " ".join([prediction.label, *(f"{name} {value}" for name, value in measures if value is not None)])
        )
    return "; ".join(words)
