"""Finds the model for a request by name or by task. The repository fills the registry."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from typing import Protocol

from service.errors import Reason, RequestError
from service.models.budget import Budget
from service.models.entry import ModelEntry, State
from service.models.footprint import Footprint
from service.models.model import AnyModel, ImageModel, takes_images
from service.settings import Settings
from service.tasks import TASKS, Operation, can_answer
from zoo.served_card import AnyServed, ServedCard, ServedTensors


class NotLoadedError(RequestError):
    """A model is not loaded before it is asked for (`on_demand`).

    Attributes:
        entry: of the model.
    """

    def __init__(self, entry: ModelEntry) -> None:
        super().__init__(Reason.NOT_READY, f"`{entry.name}` is not loaded. Try again shortly.", retry_after=2)
        self.entry = entry


class Registry(ABC):
    """All models that a process answers with, and their states.

    Args:
        settings: of the server.

    Attributes:
        budget: the memory that models may take; with one, only pinned models are loaded at the start.
        known: whether the models of the store are known.
        problem: why the store has no models, or not all that the settings name.
        broken: why nothing can be served until the process is restarted.
        entries: by name. The dictionary is replaced, never changed, so requests read it without a lock.
    """

    def __init__(self, settings: Settings) -> None:
        self.budget = Budget(settings)
        self.known = True
        self.problem = ""
        self.broken = ""
        self.entries: dict[str, ModelEntry] = {}

    @property
    def served(self) -> list[str]:
        """The names of the models that answer, or without which the server is not ready."""
        return [name for name, entry in self.entries.items() if entry.awaited or entry.model is not None]

    @property
    def ready(self) -> bool:
        """Whether every model that stays loaded has passed all checks.

        One that was added after the start may still be loading, or have failed: the others answer as before.
        """
        all_ready = all(
            entry.state in (State.READY, State.UNLOADED) or not entry.awaited
            for entry in self.entries.values()
            if entry.pinned
        )
        return all_ready and not self.problem and not self.broken

    @abstractmethod
    def load(self) -> None:
        """Load every model, and wait."""

    @abstractmethod
    def load_in_background(self, then: Callable[[], None]) -> None:
        """Load every model on a thread; see `Repository.load_in_background`."""

    @abstractmethod
    def close(self) -> None:
        """Stop loading models."""

    @abstractmethod
    def reload(self, name: str | None = None) -> bool:
        """Load what is new in the store; see `Repository.reload`."""

    @abstractmethod
    def unload(self, name: str) -> None:
        """Stop serving a model; see `Repository.unload`."""

    def resident(self, entry: ModelEntry) -> Footprint:
        """Return what a model takes in this process now."""
        return entry.footprint if entry.model else Footprint()

    def engines(self) -> int:
        """How many processes run models for this one, and have loaded all that stay loaded."""
        return int(self.ready)

    def silent(self) -> float:
        """Seconds for which the process that runs the models has not shown that it lives."""
        return 0.0

    def get(self, task: Operation, name: str | None = None, version: str | None = None) -> ImageModel:
        """Find the model of a request for a task: the named one, or the default of the task.

        Raises:
            RequestError: `unknown_model`, `not_ready`, or `bad_option` if the model has another task.
            NotLoadedError: it is loaded when it is asked for.
        """
        entry = self.entries.get(name) if name else self._default(task)
        if entry is None:
            raise self._missing(name, task)
        model = entry.model
        card = model.card if model else entry.card
        if isinstance(card, ServedTensors):
            raise RequestError(Reason.BAD_OPTION, f"`{entry.name}` takes tensors: POST /v2/models/{entry.name}/infer.")
        if card and not can_answer(card, task):
            raise RequestError(Reason.BAD_OPTION, self._unable(card, task))
        found = _served(entry, version)
        assert takes_images(found)  # noqa: S101 - its task is one of images
        return found

    def find(self, name: str, version: str | None = None) -> AnyModel:
        """Find a model of any task by its name.

        Raises:
            RequestError: `unknown_model` or `not_ready`.
            NotLoadedError: it is loaded when it is asked for.
        """
        return _served(self.named(name), version)

    def card(self, name: str, version: str | None = None) -> AnyServed:
        """Find the card of a model that answers requests, loaded or when it is asked for.

        Raises:
            RequestError: `unknown_model` or `not_ready`.
        """
        entry = self.named(name)
        try:
            return _served(entry, version).card
        except NotLoadedError:
            if entry.card is None:
                raise
            return entry.card

    def ready_for(self, task: Operation) -> list[ImageModel]:
        """Return the loaded models of a task."""
        models = [entry.model for entry in self._of(task)]
        return [model for model in models if model is not None and takes_images(model)]

    def named(self, name: str) -> ModelEntry:
        """Find the entry of a model, loaded or not.

        Raises:
            RequestError: `unknown_model`; `not_ready` before the models are known.
        """
        entry = self.entries.get(name)
        if entry is None:
            raise self._missing(name)
        return entry

    def _missing(self, name: str | None, task: Operation | None = None) -> RequestError:
        """Return the error of a request for a model that is not there, with the names of those that are."""
        if not self.known:
            return RequestError(Reason.NOT_READY, "The models are not known yet. Try again shortly.", retry_after=1)
        if name is None:
            return RequestError(Reason.UNKNOWN_MODEL, f"No model for /v1/{task} is loaded.")
        known = ", ".join(entry.name for entry in (self._of(task) if task else self.entries.values())) or "none"
        where = f" for /v1/{task}" if task else ""
        return RequestError(Reason.UNKNOWN_MODEL, f"There is no model `{name[:80]}`. Loaded{where}: {known}.")

    def _unable(self, card: ServedCard, task: Operation) -> str:
        """Return a message why a model does not answer a task, with the names of those that do where that may help."""
        module = TASKS[task]
        if card.task != (module.card_task or task):
            return f"`{card.name}` is a model for /v1/{card.task}, not for /v1/{task}."
        able = ", ".join(f"`{entry.name}`" for entry in self._of(task)) or "none"
        return (
            f"`{card.name}` does not answer /v1/{task}: its graph has no output `{module.needs}`. Loaded models that "
            f"do: {able}. `zooserve export {card.name}` adds it where the network has one."
        )

    def _of(self, task: Operation) -> list[ModelEntry]:
        return [entry for entry in self.entries.values() if entry.answers(task)]

    def _default(self, task: Operation) -> ModelEntry | None:
        of_task = [entry for entry in self._of(task) if entry.state is not State.UNLOADED]
        defaults = [entry for entry in of_task if entry.card and entry.card.task_default]
        return next(iter(defaults or of_task), None)


def _served(entry: ModelEntry, version: str | None) -> AnyModel:
    model = entry.model
    card = model.card if model else entry.card
    if card and version and version != card.version:
        raise RequestError(
            Reason.UNKNOWN_MODEL, f"`{entry.name}` is loaded in version {card.version}, not {version[:80]}."
        )
    if model is not None and model.usage.closing:
        raise NotLoadedError(entry)
    if model is None:
        if entry.state is State.ON_DEMAND or (entry.state is State.LOADING and not entry.pinned):
            raise NotLoadedError(entry)
        if entry.state is State.LOADING:
            raise RequestError(Reason.NOT_READY, f"`{entry.name}` is being loaded. Try again shortly.", retry_after=2)
        raise RequestError(Reason.NOT_READY, f"`{entry.name}` is not served: {entry.reason}")
    return model


class Loads(Protocol):
    """Loads models when they are asked for: in this process (`OnDemand`), or in the engine's."""

    def start(self) -> None:
        """Begin. On the event loop."""

    def stop(self) -> None:
        """End all that is under way."""

    async def wait(self, entry: ModelEntry, deadline: float, held: Collection[str] = ()) -> None:
        """Wait until a model is loaded; see `OnDemand.wait`."""

    async def load(self, name: str, deadline: float) -> None:
        """Load a model for an administrator; see `OnDemand.load`."""
