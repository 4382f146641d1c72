"""Which folders are loaded, and how each of them is: checked, warmed up, tested, or refused with a reason.

The store is looked at again now and then, and when an administrator asks: a new version of a folder is loaded beside
the old one and takes its place in one step, or is refused, and the old one stays.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from math import inf
from pathlib import Path
from time import perf_counter

from service.models.model import AnyModel
from service.models.loading import Loading
from service.models.entry import LONGEST_REASON, ModelEntry, State
from service.models.registry import Registry
from service.engine.stop import Stop
from service.models.unloaded import Unloaded
from service.errors import Reason, RequestError
from service.metrics import Metrics
from service.settings import Settings
from zoo.errors import StoreError
from zoo.files import shown
from zoo.store import Entry, Store

logger = logging.getLogger(__name__)
_MOST_LINES = 20  # about folders, of one look
_MOST_REASONS = 3  # why folders are skipped, in what `/readyz` says
_FOLLOW_S = 0.5  # seconds between looks at what other processes were told
_OTHERS_S = 30.0  # seconds that an administrator waits for the other processes
_PATIENCE = 60.0  # seconds after which the next model is loaded beside one that takes so long


class Repository(Registry):
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
        super().__init__()
        self._settings, self._metrics = settings, metrics
        self._load, self._self_test = load, self_test
        self._store = Store(Path(settings.models))
        self._wanted = [name.strip() for name in settings.load.split(",") if name.strip()]
        self._unloaded = unloaded or Unloaded(None)
        self._looking = threading.Lock()  # one look at a time; requests never wait for it
        self._stop = threading.Event()
        self._started = False  # whether every model that was there at the start was begun with
        self._changes = 0  # models that were loaded, refused or unloaded
        self._followed = self._unloaded.asked_for()  # what was loaded by hand, here or in another process
        self._said: frozenset[str] = frozenset()  # what was said of folders at the last look
        self._look()

    def load(self) -> None:
        """Load every model, the ones that answer by default first. Failures are kept as states, never raised."""
        self._load_first()
        for slot in self.entries.values():
            if slot.loading is not None:
                slot.loading.wait()

    def load_in_background(self, then: Callable[[], None]) -> None:
        """Load every model on a thread of its own, which then looks at the store again and again.

        Args:
            then: called after models were loaded.
        """

        def work() -> None:
            self._load_first()
            then()
            looked, watch_s = perf_counter(), self._settings.watch_s or inf
            follows = False  # from then on, whoever tells another process something waits for this one, too
            step = min(watch_s, _FOLLOW_S if self._unloaded.shared else inf)
            while step < inf and not self._stop.wait(step):
                before = self._changes
                try:
                    if self._unloaded.changed() or not follows:
                        self._follow()
                        follows = True
                    if perf_counter() - looked >= watch_s:
                        self._look_again(patient=True)
                        looked = perf_counter()
                except Exception:  # a disk that is gone for a moment, say: what is served stays
                    logger.exception("the store could not be looked at")
                if self._changes != before:
                    then()

        threading.Thread(target=work, name="load", daemon=True).start()

    def _load_first(self) -> None:
        with self._looking:
            self._load_all()
            self._started = True
        ready = sum(slot.state is State.READY for slot in self.entries.values())
        logger.info("%d of %d models are ready", ready, len(self.entries))

    def mark_broken(self, reason: str) -> None:
        """Be ready no more, because the device is lost to this process. Called from any thread."""
        if not self.broken:
            self.broken = f"the device can no longer be used, start the server again: {reason}"
            logger.critical("%s", self.broken)

    def close(self) -> None:
        """Stop looking at the store, and loading."""
        self._stop.set()
        for slot in self.entries.values():
            if slot.loading is not None:
                slot.loading.drop()

    def reload(self, name: str | None = None) -> bool:
        """Look at the store and load what is new there: every model, or the one that an administrator names.

        Returns:
            Whether a model was loaded or unloaded.

        Raises:
            RequestError: `unknown_model`: the store does not hold the model that was named. `refused`: its folder fails
                a check; what was served before, still is.
        """
        before = self._changes
        self._look_again(name)
        slot = self.entries.get(name) if name is not None else None
        if slot is not None:
            if slot.loading is not None:
                slot.loading.wait()
            if slot.refused or slot.state is State.FAILED:
                self._forget(slot)
                raise RequestError(Reason.REFUSED, f"`{slot.name}`: {slot.refused or slot.reason}")
            self._followed[slot.name] = self._unloaded.ask_for(slot.name)
            self._wait_for_others()
        return self._changes != before

    def _forget(self, slot: ModelEntry) -> None:
        """Let go of a model that only an administrator wanted, and that cannot be served."""
        with self._looking:
            if slot.model is None and self._wanted and slot.name not in self._wanted:
                self.entries = {name: other for name, other in self.entries.items() if other is not slot}

    def _follow(self) -> None:
        """Load and unload what another process was told to load and unload."""
        for name, when in self._unloaded.asked_for().items():
            if self._followed.get(name) != when:
                self._followed[name] = when
                try:
                    self._look_again(name)
                except RequestError as error:
                    logger.warning("%s was loaded by another process, and not by this one: %s", name, error)
        for slot in self.entries.values():
            if slot.state is not State.UNLOADED and slot.name in self._unloaded:
                with self._looking:
                    self._empty(slot)
        self._unloaded.followed()

    def _wait_for_others(self) -> None:
        """Return to an administrator when all processes have done the same: a client may reach any of them."""
        if not self._unloaded.wait_for_others(_OTHERS_S):
            logger.warning("another server process has not followed within %g s", _OTHERS_S)

    def _look_again(self, name: str | None = None, *, patient: bool = False) -> None:
        with self._looking:
            missing = self._look(name)
            if name is not None:
                if missing and (name not in self.entries or self.entries[name].model is not None):
                    raise RequestError(Reason.REFUSED, f"`{name[:80]}`: {missing}")
                slot = self.entries.get(name)
                if slot is None:
                    raise RequestError(
                        Reason.UNKNOWN_MODEL, f"{self._settings.models} holds no model `{name[:80]}`: export it first."
                    )
                self._unloaded.discard(slot.name)
                if slot.loading is None or slot.loading.over:
                    slot.tried = None  # whoever asks by name means it
            self._load_all(patient=patient)

    def unload(self, name: str) -> None:
        """Stop serving a model, until it is loaded by name; pictures that it has taken in are answered.

        Raises:
            RequestError: `unknown_model`.
        """
        with self._looking:
            if name not in self.entries:
                raise RequestError(Reason.UNKNOWN_MODEL, self.unknown(name))
            self._unloaded.add(name)
            self._empty(self.entries[name])
        self._wait_for_others()

    def _look(self, named: str | None = None) -> str:
        """Bring the slots up to date with the store. A model whose folder is gone keeps its slot: it still answers.

        A folder that is not whole is not there yet, unless the server starts and has no other of that name.

        Returns:
            What is missing of the folder of the model `named`, if so.
        """
        look = self._store.look()
        lines = {line: line for line in (*look.skipped, *look.ignored)}
        entries: dict[str, Entry] = {}  # of each name the latest version, which comes last
        missing: dict[str, str] = {}
        for entry in look.entries:
            if entry.missing:
                missing[entry.name] = f"version {entry.version} in the store is not whole: {entry.missing}"
                lines[str(entry.path)] = f"{entry.path} is loaded when it is whole: {shown(entry.missing)}"
            else:
                missing.pop(entry.name, None)
            if not entry.missing or not (self._started or entry.name in entries):
                entries[entry.name] = entry
        self._say_once(lines)
        wanted = [*self._wanted, *self._unloaded.asked_for()] if self._wanted else list(entries)
        slots = {
            name: slot
            for name, slot in self.entries.items()
            if name in entries or slot.settled or (name in missing and slot.state is State.FAILED)
        }
        for name in dict.fromkeys([*wanted, *slots, *([named] if named else [])]):
            if name in entries and name in slots:
                slots[name].entry = entries[name]
            elif name in entries:
                slots[name] = ModelEntry(entries[name], awaited=not self._started)
            if name in slots:
                slots[name].whole = name in entries
        lacking = [name for name in self._wanted if name not in slots]
        problem = ""
        if lacking or not slots:
            what = ", ".join(lacking) or "a single model"
            reasons = "; ".join(look.skipped[:_MOST_REASONS])
            problem = (
                f"{self._settings.models} does not hold {what}{f' that can be used ({reasons})' if reasons else ''}. "
                f"Export it with `zooserve export {' '.join(lacking) or '--default'}`, or point ZOOSERVE_MODELS at the "
                "right folder."
            )
        self.problem, self.entries = problem, slots
        return missing.get(named, "") if named else ""

    def _say_once(self, lines: Mapping[str, str]) -> None:
        """Log what is said of folders, each where it was not said at the last look."""
        fresh = [line for key, line in lines.items() if key not in self._said]
        for line in fresh[:_MOST_LINES]:
            logger.warning("%s", line)
        if len(fresh) > _MOST_LINES:
            logger.warning("%d more folders are skipped, or not whole yet", len(fresh) - _MOST_LINES)
        self._said = frozenset(lines)

    def _load_all(self, *, patient: bool = False) -> None:
        """Load and unload what is due, the models that answer by default first.

        Args:
            patient: whether a folder that fails a check, and has changed since the last look, is looked at once more.
        """
        order = sorted(
            self.entries.values(), key=lambda s: (not (s.card and s.card.task_default), s.card.size if s.card else 0)
        )
        for slot in order:
            if self._stop.is_set():
                return
            if slot.name in self._unloaded:
                if slot.state is not State.UNLOADED:
                    self._empty(slot)
                continue
            if not slot.whole:
                continue
            if slot.loading is not None and not slot.loading.over:
                continue  # what it finds is not what the folder holds now, perhaps: the next look tells
            fingerprint = (slot.entry.path, slot.entry.stamps)
            if fingerprint != slot.tried:
                settled = not patient or fingerprint == slot.changing
                slot.tried, slot.changing = fingerprint, None
                self._fill(slot, settled=settled)

    def _fill(self, slot: ModelEntry, *, settled: bool) -> None:
        """Load the slot's folder on a thread of its own; where it takes long, the next ones are loaded beside it.

        Args:
            slot: whose folder has changed.
            settled: whether a check that fails is final; otherwise the folder is tried again at the next look.
        """
        start, entry, fingerprint = perf_counter(), slot.entry, slot.tried
        if slot.model is None:
            slot.state, slot.reason = State.LOADING, ""

        def work(stop: Stop) -> AnyModel:
            model = self._load(entry.path, stop)
            self._self_test(model)
            model.golden.clear()
            return model

        def finish(outcome: AnyModel | BaseException) -> None:
            if not isinstance(outcome, BaseException):
                self._swap(slot, outcome, perf_counter() - start)
            elif isinstance(outcome, StoreError) and not settled:
                slot.tried, slot.changing = None, fingerprint
                logger.info("%s is looked at again, as it is changing: %s", entry.path, shown(outcome, LONGEST_REASON))
            else:
                self._refuse(slot, entry, shown(outcome, LONGEST_REASON))

        limit = self._settings.load_s
        slot.loading = Loading(slot.name, work, finish, limit)
        patience = min(_PATIENCE, limit / 4) if limit else _PATIENCE
        if not slot.loading.wait(patience):
            logger.warning("%s is still being loaded after %g s; others are loaded beside it", slot.name, patience)

    def _swap(self, slot: ModelEntry, model: AnyModel, seconds: float) -> None:
        """Serve a model in place of the one that is there."""
        old, slot.model = slot.model, model
        slot.card, slot.reason, slot.refused, slot.state = model.card, "", "", State.READY
        slot.awaited = False
        self._changes += 1
        if old is not None:
            self._tell(old, served=False)
        self._tell(model, served=True)
        logger.info(
            "%s is ready after %.1f s: %s, %.1f ms per picture, batches of up to %d",
            f"{slot.name} version {model.card.version}" if old else slot.name,
            seconds,
            model.session.provider,
            1000 * model.profile.seconds[1],
            model.profile.max_batch,
        )

    def _refuse(self, slot: ModelEntry, entry: Entry, reason: str) -> None:
        self._changes += 1
        if slot.model is not None:
            slot.refused = f"version {entry.version} in the store is refused: {reason}"
            self._metrics.refused.labels(slot.name).inc()
            logger.error("%s stays as it was: %s", slot.name, slot.refused)
            return
        slot.card, slot.reason, slot.state, slot.awaited = entry.card, reason, State.FAILED, True
        self._metrics.model_ready.labels(slot.name).set(0)
        logger.error("%s is not served: %s", slot.name, reason)

    def _empty(self, slot: ModelEntry) -> None:
        if slot.loading is not None:
            slot.loading.drop()
        self._changes += 1
        slot.awaited = False
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
