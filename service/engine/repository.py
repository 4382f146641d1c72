"""Which folders are loaded, and how each of them is: checked, warmed up, tested, or refused with a reason."""

import logging
import threading
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from time import perf_counter

from service.engine.model import LoadedModel
from service.errors import Reason, RequestError
from service.metrics import Metrics
from service.settings import Settings
from zoo.card import ServedCard, Task
from zoo.store import Entry, Store

logger = logging.getLogger(__name__)


class State(StrEnum):
    """How a model is."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


class Slot:
    """One model's place: its state, the reason where it failed, and the model once it is ready.

    `card` is None where the folder's card cannot be read, which is a failure of its own.
    """

    def __init__(self, entry: Entry) -> None:
        self.name = entry.name
        self.path = entry.path
        self.card = entry.card
        self.reason = entry.problem
        self.state = State.LOADING if entry.card else State.FAILED
        self.model: LoadedModel | None = None

    def answers(self, task: Task) -> bool:
        """Whether the model is one for `task`."""
        return self.card is not None and self.card.task == task


class Repository:
    """The models of one store, the latest version of each, loaded in the background.

    Args:
        settings: names the store and the models.
        metrics: told about every model's state.
        load: verifies and loads a folder; raises where it cannot be served.
        self_test: called with each loaded model before it is served; raises where it answers wrongly.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        load: Callable[[Path], LoadedModel],
        self_test: Callable[[LoadedModel], None],
    ) -> None:
        self._settings, self._metrics = settings, metrics
        self._load, self._self_test = load, self_test
        self.problem = ""  # why nothing at all can be served
        self.slots: Mapping[str, Slot] = self._find()

    def load(self) -> None:
        """Load every model, the ones that answer by default first. Failures are kept as states, never raised."""
        readable = [(slot.card, slot) for slot in self.slots.values() if slot.card is not None]
        for card, slot in sorted(readable, key=lambda pair: (not pair[0].task_default, pair[0].size)):
            self._load_slot(slot, card)
        ready = sum(slot.state is State.READY for slot in self.slots.values())
        logger.info("%d of %d models are ready", ready, len(self.slots))

    def load_in_background(self, then: Callable[[], None]) -> None:
        """Run `load` on a thread of its own, and `then` after it."""

        def work() -> None:
            self.load()
            then()

        threading.Thread(target=work, name="load", daemon=True).start()

    @property
    def ready(self) -> bool:
        """Whether every model passed every check."""
        return not self.problem and all(slot.state is State.READY for slot in self.slots.values())

    def get(self, task: Task, name: str | None, version: str | None) -> LoadedModel:
        """Find the model of a request: the named one, or the default of the task.

        Raises:
            RequestError: `unknown_model`, `not_ready`, or `bad_option` where the model does another task.
        """
        slot = self.slots.get(name) if name else self._default(task)
        if slot is None:
            raise RequestError(Reason.UNKNOWN_MODEL, self._unknown(task, name))
        card = slot.card
        if card and card.task != task:
            raise RequestError(Reason.BAD_OPTION, f"`{slot.name}` is a model for /v1/{card.task}, not for /v1/{task}.")
        if card and version and version != card.version:
            raise RequestError(
                Reason.UNKNOWN_MODEL, f"`{slot.name}` is loaded in version {card.version}, not {version}."
            )
        if slot.model is None:
            if slot.state is State.FAILED:
                raise RequestError(Reason.NOT_READY, f"`{slot.name}` is not served: {slot.reason}")
            raise RequestError(Reason.NOT_READY, f"`{slot.name}` is being loaded. Try again shortly.", retry_after=2)
        return slot.model

    def ready_for(self, task: Task) -> list[LoadedModel]:
        """The loaded models of a task."""
        return [slot.model for slot in self.slots.values() if slot.model is not None and slot.answers(task)]

    def _find(self) -> dict[str, Slot]:
        entries = {entry.name: entry for entry in Store(Path(self._settings.models)).entries()}  # the latest comes last
        wanted = [name.strip() for name in self._settings.load.split(",") if name.strip()] or list(entries)
        missing = [name for name in wanted if name not in entries]
        if missing or not wanted:
            what = ", ".join(missing) or "a single model"
            self.problem = (
                f"{self._settings.models} does not hold {what}. Export it with `zooserve export "
                f"{' '.join(missing) or '--default'}`, or point ZOOSERVE_MODELS at the right folder."
            )
        return {name: Slot(entries[name]) for name in wanted if name in entries}

    def _load_slot(self, slot: Slot, card: ServedCard) -> None:
        start = perf_counter()
        try:
            model = self._load(slot.path)
            self._self_test(model)
        except Exception as error:
            slot.reason, slot.state = str(error), State.FAILED
            self._metrics.model_ready.labels(card.name).set(0)
            logger.error("%s is not served: %s", card.name, error)  # noqa: TRY400 - the reason is enough
            return
        slot.model, slot.state = model, State.READY
        self._metrics.model_ready.labels(card.name).set(1)
        self._metrics.model_info.labels(
            card.name, card.version, model.session.provider, card.precision, model.card.sha256
        ).set(1)
        logger.info(
            "%s is ready after %.1f s: %s, %.1f ms per picture, batches of up to %d",
            card.name,
            perf_counter() - start,
            model.session.provider,
            1000 * model.profile.seconds[1],
            model.profile.max_batch,
        )

    def _default(self, task: Task) -> Slot | None:
        of_task = [slot for slot in self.slots.values() if slot.answers(task)]
        return next((slot for slot in of_task if slot.card and slot.card.task_default), of_task[0] if of_task else None)

    def _unknown(self, task: Task, name: str | None) -> str:
        if name is None:
            return f"No model for /v1/{task} is loaded."
        known = ", ".join(slot.name for slot in self.slots.values() if slot.answers(task)) or "none"
        return f"There is no model `{name[:80]}`. Loaded for /v1/{task}: {known}."
