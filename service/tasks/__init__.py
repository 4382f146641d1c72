"""Turns the outputs of a graph into predictions. Each task has a module of its own."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from msgspec import Struct

from service.options import parse_options
from service.tasks import classify, detect, segment
from zoo.card import Task
from zoo.served_card import ServedCard


class TaskModule(NamedTuple):
    """One task.

    Attributes:
        options: type of its options.
        answer: `(outputs, index, card, placement, options)` -> the predictions for the image `index` of the batch.
        unsupported_reason: `(options, card)` -> why a model does not support these options; None if it does.
    """

    options: type[Struct]
    answer: Callable[..., list[Any]]
    unsupported_reason: Callable[[Any, ServedCard], str | None] = lambda _, __: None


TASKS: Mapping[Task, TaskModule] = {
    "classify": TaskModule(classify.Options, classify.answer, classify.unsupported_reason),
    "detect": TaskModule(detect.Options, detect.answer),
    "segment": TaskModule(segment.Options, segment.answer),
}


def options_of(task: Task, params: Mapping[str, object]) -> Struct:
    """Convert parameters, as text or JSON values, to the typed options of a task.

    Raises:
        RequestError: `bad_option`: an unknown option, or a value that is not allowed.
    """
    return parse_options(TASKS[task].options, params)
