"""The models of a process as requests find them: by name, or by the task that they are for. The repository fills it."""

from service.models.entry import ModelEntry, State
from service.models.model import AnyModel, ImageModel, takes_images
from service.errors import Reason, RequestError
from zoo.card import Task


class Registry:
    """What is served, and what is not.

    Attributes:
        problem: why nothing at all can be served.
        broken: why nothing can be served until the process is started again.
        slots: replaced, never changed: whoever reads it sees a whole one.
    """

    def __init__(self) -> None:
        self.problem = ""
        self.broken = ""
        self.entries: dict[str, ModelEntry] = {}

    @property
    def ready(self) -> bool:
        """Whether every model passed every check; one that came after the start may still be loading."""
        well = all(
            slot.state in (State.READY, State.UNLOADED) or (slot.state is State.LOADING and not slot.awaited)
            for slot in self.entries.values()
        )
        return well and not self.problem and not self.broken

    def get(self, task: Task, name: str | None, version: str | None) -> ImageModel:
        """Find the model of a request: the named one, or the default of the task.

        Raises:
            RequestError: `unknown_model`, `not_ready`, or `bad_option` where the model does another task.
        """
        slot = self.entries.get(name) if name else self._default(task)
        if slot is None:
            raise RequestError(Reason.UNKNOWN_MODEL, self.unknown(name, task))
        model = slot.model
        card = model.card if model else slot.card
        if card and card.task != task:
            if card.task == "tensors":
                raise RequestError(
                    Reason.BAD_OPTION, f"`{slot.name}` takes tensors: POST /v2/models/{slot.name}/infer."
                )
            raise RequestError(Reason.BAD_OPTION, f"`{slot.name}` is a model for /v1/{card.task}, not for /v1/{task}.")
        found = self._served(slot, version)
        assert takes_images(found)  # noqa: S101 - its task is one of images
        return found

    def find(self, name: str, version: str | None = None) -> AnyModel:
        """Find a model of any task by its name.

        Raises:
            RequestError: `unknown_model` or `not_ready`.
        """
        slot = self.entries.get(name)
        if slot is None:
            raise RequestError(Reason.UNKNOWN_MODEL, self.unknown(name))
        return self._served(slot, version)

    def _served(self, slot: ModelEntry, version: str | None) -> AnyModel:
        model = slot.model
        card = model.card if model else slot.card
        if card and version and version != card.version:
            raise RequestError(
                Reason.UNKNOWN_MODEL, f"`{slot.name}` is loaded in version {card.version}, not {version[:80]}."
            )
        if model is None:
            if slot.state is State.LOADING:
                raise RequestError(
                    Reason.NOT_READY, f"`{slot.name}` is being loaded. Try again shortly.", retry_after=2
                )
            raise RequestError(Reason.NOT_READY, f"`{slot.name}` is not served: {slot.reason}")
        return model

    def ready_for(self, task: Task) -> list[ImageModel]:
        """The loaded models of a task."""
        models = (slot.model for slot in self.entries.values() if slot.answers(task))
        return [model for model in models if model is not None and takes_images(model)]

    def unknown(self, name: str | None, task: Task | None = None) -> str:
        """Say that there is no such model, and which there are."""
        if name is None:
            return f"No model for /v1/{task} is loaded."
        known = ", ".join(slot.name for slot in self.entries.values() if task is None or slot.answers(task)) or "none"
        return f"There is no model `{name[:80]}`. Loaded{f' for /v1/{task}' if task else ''}: {known}."

    def _default(self, task: Task) -> ModelEntry | None:
        of_task = [slot for slot in self.entries.values() if slot.answers(task) and slot.state is not State.UNLOADED]
        return next((slot for slot in of_task if slot.card and slot.card.task_default), of_task[0] if of_task else None)
