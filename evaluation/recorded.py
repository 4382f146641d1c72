"""Reads a server's earlier answers from LoadGen's accuracy log, to judge them. Called by `zooserve eval`."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from evaluation.dataset import DataError, Example
from service.errors import Reason, RequestError
from service.models.model import ImageModel
from service.results import (
    Box,
    Classification,
    Detection,
    ImageSize,
    Instance,
    Pose,
    Result,
    RotatedBox,
    RunLength,
    Segment,
)
from zoo.served_card import ServedCard


class Recorded:
    """Answers by the SHA-256 of the encoded image. Has the same method `predict` as the predictor.

    Attributes:
        model, version: that answered.
    """

    def __init__(self, path: Path) -> None:
        """Read `mlperf_log_accuracy.json` from `loadtests.loadgen accuracy`.

        Raises:
            DataError: it cannot be read, is not such a log, or has answers of several models.
        """
        try:
            entries = msgspec.json.decode(path.read_bytes(), type=list[_Entry])
            logged = [msgspec.json.decode(bytes.fromhex(entry.data), type=_Logged) for entry in entries if entry.data]
            self._answers = {one.image_sha256: _result(one.answer) for one in logged}
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from error
        except (msgspec.MsgspecError, ValueError) as error:
            raise DataError(f"{path} is not an accuracy log of `loadtests.loadgen accuracy`: {error}") from error
        models = {(answer.model, answer.version) for answer in self._answers.values()}
        if len(models) != 1:
            raise DataError(f"{path} has answers of {len(models)} models: expected those of one")
        ((self.model, self.version),) = models

    def __len__(self) -> int:
        return len(self._answers)

    def knows(self, image: bytes) -> bool:
        """Return whether the log has an answer to an encoded image."""
        return sha256(image).hexdigest() in self._answers

    def predict(self, data: bytes, model: ImageModel, params: Mapping[str, Any]) -> Result:  # noqa: ARG002 - as the predictor
        """Return the answer to an image.

        Raises:
            RequestError: `bad_request`: the log has none.
        """
        answer = self._answers.get(sha256(data).hexdigest())
        if answer is None:
            raise RequestError(Reason.BAD_REQUEST, "The log has no answer to it.")
        return answer


def read_recorded(path: Path, card: ServedCard) -> Recorded:
    """Read a log of a model's answers.

    Raises:
        DataError: it is not such a log, or is of another model or version.
    """
    recorded = Recorded(path)
    if (recorded.model, recorded.version) != (card.name, card.version):
        raise DataError(
            f"{path} has answers of {recorded.model} {recorded.version}, not of {card.name} {card.version}: "
            f"`zooserve eval {recorded.model}` judges them"
        )
    return recorded


def answered(examples: Sequence[Example], recorded: Recorded) -> tuple[list[Example], str]:
    """Return the examples that have an answer in a log, and a note about their number.

    Raises:
        DataError: there are none.
    """
    found = [example for example in examples if _is_in(recorded, example)]
    if not found:
        raise DataError(f"the log has {len(recorded)} answers, and none to these {len(examples)} images")
    left_out = "; the others are left out" if len(found) < len(examples) else ""
    return found, f"answers of a server, to {len(found)} of {len(examples)} images{left_out}"


def _is_in(recorded: Recorded, example: Example) -> bool:
    try:
        return recorded.knows(example.read())
    except OSError:
        return True  # the judge then reports the file's error


class _Entry(Struct):
    """One query in LoadGen's log; `data` is hexadecimal, empty if it was not answered."""

    data: str


class _Answer(Struct):
    model: str
    version: str
    task: str
    image: ImageSize
    predictions: msgspec.Raw


class _Logged(Struct):
    image_sha256: str
    answer: _Answer


class _Segment(Struct):
    class_id: int
    label: str
    area: float
    mask: RunLength | None = None
    score: float | None = None
    box: Box | None = None


def _result(answer: _Answer) -> Result:
    predictions: list[Classification] | list[Detection] | list[Segment] | list[Instance] | list[Pose] | list[RotatedBox]
    if answer.task == "classify":
        predictions = msgspec.json.decode(answer.predictions, type=list[Classification])
    elif answer.task == "pose":
        predictions = msgspec.json.decode(answer.predictions, type=list[Pose])
    elif answer.task == "obb":
        predictions = msgspec.json.decode(answer.predictions, type=list[RotatedBox])
    elif answer.task == "detect":
        predictions = msgspec.json.decode(answer.predictions, type=list[Detection])
    else:
        predictions = _segments(msgspec.json.decode(answer.predictions, type=list[_Segment]))
    return Result(answer.model, answer.version, answer.task, answer.image, predictions)


def _segments(found: list[_Segment]) -> list[Segment] | list[Instance]:
    if any(one.score is None or one.box is None for one in found):
        return [Segment(one.class_id, one.label, one.area, one.mask) for one in found]
    return [
        Instance(one.class_id, one.label, one.score, one.box, one.area, one.mask)
        for one in found
        if one.score is not None and one.box is not None
    ]
