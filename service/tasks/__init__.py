"""What the outputs of a graph mean: one module per task, so that a new task is one new file."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from msgspec import Struct

from service.tasks import classify, detect, segment
from zoo.card import Task


class TaskModule(NamedTuple):
    """A task's options, and `answer(outputs, index, card, placement, options)`: one picture's predictions."""

    options: type[Struct]
    answer: Callable[..., list[Any]]


TASKS: Mapping[Task, TaskModule] = {
    "classify": TaskModule(classify.Options, classify.answer),
    "detect": TaskModule(detect.Options, detect.answer),
    "segment": TaskModule(segment.Options, segment.answer),
}
