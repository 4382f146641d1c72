"""Asks the predictor about every example of a dataset, on all cores. Called by `zooserve eval`."""

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
    """An image, or its truth, that could not be read, and why."""

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
        predictor: prepares the images; or has their answers already.
        model: answers.
        examples: of the dataset.
        judge: of the dataset.
        threads: how many images are under way at once; each is answered on one core.
        on_done: called with the number of images done since.

    Returns:
        What the judge found, and what could not be read.

    Raises:
        DataError: nothing could be read.
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
    """Why an image could not be read, as a sentence."""
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def nothing_left(problems: Sequence[Problem]) -> DataError:
    """The error where not one image could be read."""
    return DataError(f"none of {len(problems)} images could be judged; {problems[0].name}: {problems[0].problem}")
