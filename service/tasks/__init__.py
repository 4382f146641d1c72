"""Turns the outputs of a graph into predictions. Each task has a module of its own; `TASKS` lists them.

A task that is added here has its `/v1` route, its page in OpenAPI, its self-test and its answer over `/v2` and gRPC.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from msgspec import Struct

from service.options import parse_options
from service.results import Classification, CocoPose, Detection, Embedding, Instance, Pose, RotatedBox, Segment
from service.tasks import classify, detect, embed, obb, pose, segment
from zoo.card import Task
from zoo.served_card import ServedCard

Operation = Task | Literal["embed"]
"""What a request asks for. `embed` is another answer of classifiers, so no card has it as its task."""


class TaskModule(NamedTuple):
    """One task.

    Attributes:
        summary: what it does, for the API's documentation.
        options: type of its options. Each task has a type of its own, which tells the task of a request.
        prediction: type of one prediction.
        answer: `(outputs, index, card, placement, options)` -> the predictions for one image: of the graph's outputs,
            the image's index in the batch, the model's card, the placement of the image in the graph's input, and the
            options of the request.
        golden: the options for golden photos, found with a score of 0.5. A threshold keeps what fell a little below.
        card_task: the task of the cards whose models answer it, if it has another name.
        needs: an output that the graph must have.
        drawn: whether its predictions can be drawn on the image.
        light: `options` -> whether an answer takes a fraction of a millisecond, whatever the image.
        unsupported_reason: `(options, card)` -> why a model does not support these options; None if it does.
    """

    summary: str
    options: type[Struct]
    prediction: Any
    answer: Callable[..., list[Any]]
    golden: Mapping[str, Any]
    card_task: Task | None = None
    needs: str = ""
    drawn: bool = True
    light: Callable[[Any], bool] = lambda _: False
    unsupported_reason: Callable[[Any, ServedCard], str | None] = lambda _, __: None


# As golden answers of objects are selected, whatever the card says; a score may have fallen a little below 0.5.
GOLDEN = {"score_threshold": 0.4, "iou_threshold": 0.45, "max_detections": 1000}
TASKS: Mapping[Operation, TaskModule] = {
    "classify": TaskModule(
        "Name what an image shows",
        classify.Options,
        Classification,
        classify.answer,
        {"top_k": 5},
        light=classify.light,
        unsupported_reason=classify.unsupported_reason,
    ),
    "embed": TaskModule(
        "Answer with the features of an image, for search and comparison",
        embed.Options,
        Embedding,
        embed.answer,
        {},
        card_task="classify",
        needs="embedding",
        drawn=False,
        light=lambda _: True,
    ),
    "detect": TaskModule(
        "Find the objects in an image, with their boxes",
        detect.Options,
        Detection,
        detect.answer,
        GOLDEN,
    ),
    "segment": TaskModule(
        "Tell which pixels belong to which class, or to which object",
        segment.Options,
        Segment | Instance,
        segment.answer,
        {"mask": "none", **GOLDEN},
        unsupported_reason=segment.unsupported_reason,
    ),
    "pose": TaskModule(
        "Find the objects in an image, with the keypoints of their poses",
        pose.Options,
        Pose | CocoPose,
        pose.answer,
        GOLDEN,
    ),
    "obb": TaskModule(
        "Find the objects in an image, with rotated boxes",
        obb.Options,
        RotatedBox,
        obb.answer,
        GOLDEN,
    ),
}
_OPERATIONS: Mapping[type[Struct], Operation] = {module.options: operation for operation, module in TASKS.items()}


def options_of(operation: Operation, params: Mapping[str, object]) -> Struct:
    """Convert parameters, as text or JSON values, to the typed options of a task.

    Raises:
        RequestError: `bad_option`: an unknown option, or a value that is not allowed.
    """
    return parse_options(TASKS[operation].options, params)


def operation_of(options: Struct) -> Operation:
    """Return the task that options belong to."""
    return _OPERATIONS[type(options)]


def can_answer(card: ServedCard, operation: Operation) -> bool:
    """Return whether a model answers a task: its card has it, or its graph the output that the task needs."""
    module = TASKS[operation]
    needed = not module.needs or any(output.name == module.needs for output in card.outputs)
    return card.task == (module.card_task or operation) and needed
