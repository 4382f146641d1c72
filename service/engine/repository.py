"""Which folders are loaded, and how each of them is: checked, warmed up, tested, or refused with a reason.

The store is looked at again now and then, and when an administrator asks: a new version of a folder is loaded beside
the old one and takes its place in one step, or is refused, and the old one stays.
"""

import logging
import threading
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from time import perf_counter
from typing import Any

from service.engine.model import LoadedModel
from service.engine.stop import Stop
from service.engine.tensors import TensorModel
from service.engine.unloaded import Unloaded
from service.errors import Reason, RequestError
from service.metrics import Metrics
from service.settings import Settings
from zoo.card import ServedTensors, Task
from zoo.store import Entry, Store, read_folder

logger = logging.getLogger(__name__)
AnyModel = LoadedModel | TensorModel
Fingerprint = tuple[Path, int]  # a folder, and when its card was written


class State(StrEnum):
    """How a model is."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    UNLOADED = "unloaded"


class Slot:
    """One model's place: what is served there, or why nothing is.

    Attributes:
        card: of the model that is served, or else of the folder; None where that cannot be read.
        reason: why nothing is served.
        refused: why the folder that the store holds now is not the one that is served.
        model: what answers. It is replaced in one step, and whoever still holds the old one can finish with it.
    """

    def __init__(self, entry: Entry) -> None:
        self.name = entry.name
        self.entry = entry
        self.card = entry.card
        self.reason = entry.problem
        self.refused = ""
        self.state = State.LOADING if entry.card else State.FAILED
        self.model: AnyModel | None = None
        self.tried: Fingerprint | None = None  # the folder that was loaded, or refused, last

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
        unloaded: names that were unloaded by hand.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        load: Callable[[Path, Stop], AnyModel],
        self_test: Callable[[AnyModel], None],
        unloaded: Unloaded | None = None,
    ) -> None:
        self._settings, self._metrics = settings, metrics
        self._load, self._self_test = load, self_test
        self._store = Store(Path(settings.models))
        self._wanted = [name.strip() for name in settings.load.split(",") if name.strip()]
        self._unloaded = unloaded or Unloaded(None)
        self._looking = threading.Lock()  # one look at a time; requests never wait for it
        self._stop = threading.Event()
        self.problem = ""  # why nothing at all can be served
        self.broken = ""  # why nothing can be served until the process is started again
        self.slots: dict[str, Slot] = {}  # replaced, never changed: whoever reads it sees a whole one
        self._look()

    def load(self) -> None:
        """Load every model, the ones that answer by default first. Failures are kept as states, never raised."""
        with self._looking:
            self._load_all()
        ready = sum(slot.state is State.READY for slot in self.slots.values())
        logger.info("%d of %d models are ready", ready, len(self.slots))

    def load_in_background(self, then: Callable[[], None]) -> None:
        """Run `load` on a thread of its own, which then looks at the store again and again; `then` after every load."""

        def work() -> None:
            self.load()
            then()
            while self._settings.watch_s and not self._stop.wait(self._settings.watch_s):
                try:
                    if self.reload():
                        then()
                except Exception:  # a disk that is gone for a moment, say: what is served stays
                    logger.exception("the store could not be looked at")

        threading.Thread(target=work, name="load", daemon=True).start()

    def give_up(self, reason: str) -> None:
        """Be ready no more, because the device is lost to this process. Called from any thread."""
        if not self.broken:
            self.broken = f"the device can no longer be used, start the server again: {reason}"
            logger.critical("%s", self.broken)

    def close(self) -> None:
        """Stop looking at the store."""
        self._stop.set()

    def reload(self, name: str | None = None) -> bool:
        """Look at the store and load what is new there: every model, or the one that an administrator names.

        Returns:
            Whether a model was loaded or unloaded.

        Raises:
            RequestError: `unknown_model`: the store does not hold the model that was named. `refused`: its folder fails
                a check; what was served before, still is.
        """
        with self._looking:
            self._look(name)
            slot = self.slots.get(name) if name is not None else None
            if name is not None and slot is None:
                raise RequestError(
                    Reason.UNKNOWN_MODEL, f"{self._settings.models} holds no model `{name[:80]}`: export it first."
                )
            if slot is not None:
                self._unloaded.discard(slot.name)
                slot.tried = None  # whoever asks by name means it
            changed = self._load_all()
        if slot is not None and (slot.refused or slot.state is State.FAILED):
            raise RequestError(Reason.REFUSED, f"`{slot.name}`: {slot.refused or slot.reason}")
        return changed

    def unload(self, name: str) -> None:
        """Stop serving a model, until it is loaded by name; pictures that it has taken in are answered.

        Raises:
            RequestError: `unknown_model`.
        """
        with self._looking:
            if name not in self.slots:
                raise RequestError(Reason.UNKNOWN_MODEL, self.unknown(name))
            self._unloaded.add(name)
            self._empty(self.slots[name])

    @property
    def ready(self) -> bool:
        """Whether every model passed every check."""
        states = {slot.state for slot in self.slots.values()}
        return not self.problem and not self.broken and states <= {State.READY, State.UNLOADED}

    def get(self, task: Task, name: str | None, version: str | None) -> LoadedModel:
        """Find the model of a request: the named one, or the default of the task.

        Raises:
            RequestError: `unknown_model`, `not_ready`, or `bad_option` where the model does another task.
        """
        slot = self.slots.get(name) if name else self._default(task)
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
        assert isinstance(found, LoadedModel)  # noqa: S101 - its task is one for pictures
        return found

    def find(self, name: str, version: str | None = None) -> AnyModel:
        """Find a model of any task by its name.

        Raises:
            RequestError: `unknown_model` or `not_ready`.
        """
        slot = self.slots.get(name)
        if slot is None:
            raise RequestError(Reason.UNKNOWN_MODEL, self.unknown(name))
        return self._served(slot, version)

    def _served(self, slot: Slot, version: str | None) -> AnyModel:
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

    def ready_for(self, task: Task) -> list[LoadedModel]:
        """The loaded models of a task."""
        models = (slot.model for slot in self.slots.values() if slot.answers(task))
        return [model for model in models if isinstance(model, LoadedModel)]

    def unknown(self, name: str | None, task: Task | None = None) -> str:
        """Say that there is no such model, and which there are."""
        if name is None:
            return f"No model for /v1/{task} is loaded."
        known = ", ".join(slot.name for slot in self.slots.values() if task is None or slot.answers(task)) or "none"
        return f"There is no model `{name[:80]}`. Loaded{f' for /v1/{task}' if task else ''}: {known}."

    def _look(self, named: str | None = None) -> None:
        """Bring the slots up to date with the store. A model whose folder is gone keeps its slot: it still answers."""
        entries = {entry.name: entry for entry in self._store.entries()}  # the latest version comes last
        wanted = self._wanted or list(entries)
        slots = dict(self.slots)
        for name in dict.fromkeys([*wanted, *slots, *([named] if named else [])]):
            entry = entries.get(name)
            if entry is not None and name in slots:
                slots[name].entry = entry
            elif entry is not None:
                slots[name] = Slot(entry)
        missing = [name for name in wanted if name not in slots]
        problem = ""
        if missing or not slots:
            what = ", ".join(missing) or "a single model"
            problem = (
                f"{self._settings.models} does not hold {what}. Export it with `zooserve export "
                f"{' '.join(missing) or '--default'}`, or point ZOOSERVE_MODELS at the right folder."
            )
        self.problem, self.slots = problem, slots

    def _load_all(self) -> bool:
        """Load and unload what is due, the models that answer by default first. Say whether anything was."""
        changed = False
        order = sorted(
            self.slots.values(), key=lambda s: (not (s.card and s.card.task_default), s.card.size if s.card else 0)
        )
        for slot in order:
            if slot.name in self._unloaded:
                if slot.state is not State.UNLOADED:
                    self._empty(slot)
                    changed = True
                continue
            fingerprint = _fingerprint(slot.entry)
            if fingerprint not in (None, slot.tried):
                slot.tried = fingerprint
                self._fill(slot)
                changed = True
        return changed

    def _fill(self, slot: Slot) -> None:
        """Load the slot's folder and swap it in; where it fails a check, what is there stays."""
        start = perf_counter()
        if slot.model is None:
            slot.state, slot.reason = State.LOADING, ""
        try:
            model = self._load(slot.entry.path, Stop())
            self._self_test(model)
            model.golden.clear()
        except Exception as error:
            self._refuse(slot, str(error))
            return
        old, slot.model = slot.model, model
        slot.card, slot.reason, slot.refused, slot.state = model.card, "", "", State.READY
        if old is not None:
            self._tell(old, served=False)
        self._tell(model, served=True)
        logger.info(
            "%s is ready after %.1f s: %s, %.1f ms per picture, batches of up to %d",
            f"{slot.name} version {model.card.version}" if old else slot.name,
            perf_counter() - start,
            model.session.provider,
            1000 * model.profile.seconds[1],
            model.profile.max_batch,
        )

    def _refuse(self, slot: Slot, reason: str) -> None:
        if slot.model is not None:
            slot.refused = f"version {slot.entry.version} in the store is refused: {reason}"
            self._metrics.refused.labels(slot.name).inc()
            logger.error("%s stays as it was: %s", slot.name, slot.refused)
            return
        slot.card, slot.reason, slot.state = slot.entry.card, reason, State.FAILED
        self._metrics.model_ready.labels(slot.name).set(0)
        logger.error("%s is not served: %s", slot.name, reason)

    def _empty(self, slot: Slot) -> None:
        old, slot.model = slot.model, None
        slot.state, slot.tried, slot.refused = State.UNLOADED, None, ""
        slot.reason = f"it was unloaded; POST /v1/models/{slot.name}/load loads it again"
        if old is not None:
            self._tell(old, served=False)
        logger.info("%s was unloaded", slot.name)

    def _tell(self, model: AnyModel, *, served: bool) -> None:
        """Tell the metrics that a model is served, or no longer is."""
        card = model.card
        self._metrics.model_ready.labels(card.name).set(served)
        self._metrics.model_info.labels(
            card.name, card.version, model.session.provider, card.precision, card.sha256
        ).set(served)

    def _default(self, task: Task) -> Slot | None:
        of_task = [slot for slot in self.slots.values() if slot.answers(task) and slot.state is not State.UNLOADED]
        return next((slot for slot in of_task if slot.card and slot.card.task_default), of_task[0] if of_task else None)


def _fingerprint(entry: Entry) -> Fingerprint | None:
    """What changes when a folder is published again; None where the folder is gone."""
    try:
        return entry.path, (entry.path / "card.json").stat().st_mtime_ns
    except OSError:
        return None


def load_folder(folder: Path, stop: Stop, **arguments: Any) -> AnyModel:
    """Verify a folder of the store, and load what was verified as what its card says it is.

    Args:
        folder: of the store.
        stop: ends the loading when it is asked to.
        arguments: as of `LoadedModel`.

    Raises:
        StoreError: the folder is not as it was published.
        SessionError: ONNX Runtime cannot run the graph as asked.
    """
    contents = read_folder(folder)
    kind = TensorModel if isinstance(contents.card, ServedTensors) else LoadedModel
    return kind(folder, contents, stop, **arguments)
