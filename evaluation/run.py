"""Answers and judges all examples of a dataset, on all cores. Called by `zooserve eval`."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from msgspec import Struct

from evaluation.dataset import DataError, Example, Judge, Scores
from evaluation.recorded import Recorded
from service.errors import RequestError
from service.models.model import ImageModel
from service.predictor import Predictor


class Problem(Struct, frozen=True):
    """An image that could not be judged, and why."""

    name: str
    problem: str


def judge_all(
    predictor: Predictor | Recorded,
    model: ImageModel,
    examples: Sequence[Example],
    judge: Judge,
    *,
    threads: int,
    on_done: Callable[[int], None] = lambda _: None,
) -> tuple[Scores, list[Problem]]:
    """Answer every example as a server would, and judge the answers.

    Args:
        predictor: answers the images, or has recorded answers.
        model: answers.
        examples: of the dataset.
        judge: of the dataset.
        threads: number of concurrent images; each is answered on one core.
        on_done: called with the number of images done since the last call.

    Returns:
        The judge's scores, and the images that could not be judged.

    Raises:
        DataError: no image could be judged.
    """

    def ask(example: Example) -> Any:
        try:
            return judge.compare(example, predictor.predict(example.read(), model, judge.options))
        except (OSError, RequestError, DataError) as error:
            return Problem(example.name, reason(error))

    problems = []
    with ThreadPoolExecutor(threads, "eval") as pool:
        for verdict in pool.map(ask, examples):
            if isinstance(verdict, Problem):
                problems.append(verdict)
            else:
                judge.add(verdict)
            on_done(1)
    if len(problems) == len(examples):
        raise nothing_left(problems)
    return judge.scores(), problems


def reason(error: Exception) -> str:
    """Return why an image could not be read, as a sentence."""
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def nothing_left(problems: Sequence[Problem]) -> DataError:
    """Make the error for a dataset of which no image could be judged."""
    return DataError(f"none of {len(problems)} images could be judged; {problems[0].name}: {problems[0].problem}")
