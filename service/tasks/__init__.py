"""What the outputs of a graph mean: one module per task, so that a new task is one new file."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from msgspec import Struct

from service.tasks import classify, detect, segment
from zoo.card import Task
from zoo.served_card import ServedCard


class TaskModule(NamedTuple):
    """A task's options, and what it does with them.

    Attributes:
        options: their type.
        answer: `(outputs, index, card, placement, options)` -> one picture's predictions.
        cannot: `(options, card)` -> why a model cannot answer with these options; None where it can.
    """

    options: type[Struct]
    answer: Callable[..., list[Any]]
    cannot: Callable[[Any, ServedCard], str | None] = lambda _, __: None


TASKS: Mapping[Task, TaskModule] = {
    "classify": TaskModule(classify.Options, classify.answer, classify.cannot),
    "detect": TaskModule(detect.Options, detect.answer),
    "segment": TaskModule(segment.Options, segment.answer),
}
