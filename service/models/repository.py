"""The models of one store: loaded in the background, updated, and loaded or unloaded by an administrator.

The store is scanned at intervals, and when an administrator asks for it. A new version of a folder is loaded while the
old one answers. It replaces the old one in one step, or is refused, and the old one stays. A server that starts serves
the newest version that is not refused.

Threads: a thread named "load" loads all models and then follows the store and the other server processes.
Administrators' calls run on their own threads. The lock `_looking` lets only one thread at a time change the entries.
Requests read `entries` without the lock, and never wait.
"""

import logging
import threading
from collections.abc import Callable
from math import inf
from pathlib import Path
from time import perf_counter

from service.errors import Reason, RequestError
from service.models.entry import ModelEntry, State, fingerprint_of
from service.models.footprint import Footprints
from service.models.loader import Load, Loader, SelfTest
from service.models.registry import Registry
from service.models.room import Room
from service.models.scan import Found, Scan
from service.models.unloaded import Unloaded
from service.settings import Settings, names_in
from service.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)
_FOLLOW_S = 0.5  # seconds between two reads of administrators' changes in other processes
_OTHERS_S = 30.0  # seconds that an administrator waits for the other processes


class Repository(Registry):
    """The latest version of each model of a store.

    Args:
        settings: name the store and the models.
        metrics: get every model's state.
        load: verifies and loads a folder; raises if it cannot be served.
        self_test: called with each loaded model before it is served; raises if its answers are wrong.
        unloaded: models that were unloaded or loaded by hand, shared by all server processes.
        footprints: what each model takes.

    Attributes:
        room: what is loaded within it.
        evict: see `Loader.evict`.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        load: Load,
        self_test: SelfTest,
        unloaded: Unloaded | None = None,
        footprints: Footprints | None = None,
    ) -> None:
        super().__init__(settings)
        footprints = footprints or Footprints(settings)
        self._settings = settings
        self._loader = Loader(settings, metrics, load, self_test, footprints)
        self.room = Room(self.budget, footprints, self._loader, names_in(settings.pin))
        self.evict = self._loader.evict
        self._scan = Scan(Path(settings.models))
        self._wanted = names_in(settings.load)
        self._unloaded = unloaded or Unloaded(None)
        self._looking = threading.Lock()  # held while entries are changed, also for a minute during a loading
        self._following, self._stop = threading.Lock(), threading.Event()
        self._started = False  # whether the loading of all models that were there at the start has begun
        self._followed = self._unloaded.asked_for()  # models that were loaded by hand, here or in another process
        self._look()

    def load(self) -> None:
        """Load every model, default models first. Failures become states of the entries and are not raised."""
        self._load_first()
        for entry in self.entries.values():
            if entry.loading is not None:
                entry.loading.wait()

    def load_in_background(self, then: Callable[[], None]) -> None:
        """Load every model on a thread, which then scans the store repeatedly.

        Args:
            then: called each time models were loaded or unloaded.
        """

        def work() -> None:
            self._load_first()
            then()
            looked, watch_s = perf_counter(), self._settings.watch_s or inf
            follows = False  # after the first time, other processes wait for this one to follow their changes
            step = min(watch_s, _FOLLOW_S if self._unloaded.shared else inf)
            while step < inf and not self._stop.wait(step):
                before = self._loader.changes
                try:
                    if self._unloaded.changed() or not follows:
                        self.follow()
                        follows = True
                    if perf_counter() - looked >= watch_s:
                        self._look_again(watching=True)
                        looked = perf_counter()
                except Exception:  # for example a disk that is not available for a moment: served models stay
                    logger.exception("the store could not be looked at")
                if self._loader.changes != before:
                    then()

        threading.Thread(target=work, name="load", daemon=True).start()

    def close(self) -> None:
        """Stop scanning the store and loading models."""
        self._stop.set()
        for entry in self.entries.values():
            if entry.loading is not None:
                entry.loading.drop()

    def mark_broken(self, reason: str) -> None:
        """Set the process to not ready, because it cannot use its device any more. May be called from any thread."""
        if not self.broken:
            self.broken = f"the device can no longer be used, start the server again: {reason}"
            logger.critical("%s", self.broken)

    def reload(self, name: str | None = None) -> bool:
        """Scan the store and load new versions: of all models, or of the one that an administrator names.

        Returns:
            Whether a model was loaded or unloaded.

        Raises:
            RequestError: `unknown_model`: the store does not have the named model. `refused`: its folder fails a
                check; a version that was served before still is.
        """
        before, entry = self._loader.changes, self._load_again(name)
        if entry is not None and entry.changing is not None:  # a regular scan loaded it and refused nothing
            entry = self._load_again(name)
        if entry is not None:
            if entry.refused or entry.state is State.FAILED:
                self._forget(entry)
                raise RequestError(Reason.REFUSED, f"`{entry.name}`: {entry.refused or entry.reason}")
            self._followed[entry.name] = self._unloaded.ask_for(entry.name)
            self._unloaded.wait_for_others(_OTHERS_S)
        return self._loader.changes != before

    def unload(self, name: str) -> None:
        """Stop serving a model until it is loaded by name. Its queued requests are still answered.

        Raises:
            RequestError: `unknown_model`.
        """
        with self._looking:
            entry = self.named(name)
            self._unloaded.add(name)
            self._loader.unload(entry)
        self._unloaded.wait_for_others(_OTHERS_S)

    def load_on_demand(self, entry: ModelEntry) -> None:
        """Load a model for which there is room, and wait for it; a failure becomes its state."""
        with self._looking:
            if entry.model is None and entry.state is State.ON_DEMAND:
                self._loader.load(entry, final=True, fall_back=True)
        if entry.loading is not None:
            entry.loading.wait()

    def follow(self) -> None:
        """Load and unload the models that an administrator loaded or unloaded in another process."""
        with self._following:
            self._unloaded.changed()  # what comes from now on is followed later
            for name, when in self._unloaded.asked_for().items():
                if self._followed.get(name) != when:
                    self._followed[name] = when
                    try:
                        self._look_again(name)
                    except RequestError as error:
                        logger.warning("%s was loaded by another process, and not by this one: %s", name, error)
            for entry in self.entries.values():
                if entry.state is not State.UNLOADED and entry.name in self._unloaded:
                    with self._looking:
                        self._loader.unload(entry)
            self._unloaded.followed()

    def _forget(self, entry: ModelEntry) -> None:
        """Remove a model that cannot be served and that only an administrator asked for, not the settings."""
        with self._looking:
            if entry.model is None and self._wanted and entry.name not in self._wanted:
                self.entries = {name: other for name, other in self.entries.items() if other is not entry}

    def _load_first(self) -> None:
        with self._looking:
            self._load_all()
            self._started = True
        self._unloaded.followed()  # from now on others wait until this process has followed them
        ready = sum(entry.state is State.READY for entry in self.entries.values())
        level, problem = (logging.WARNING, f". {self.problem}") if self.problem else (logging.INFO, "")
        logger.log(level, "%d of %d models are ready%s", ready, len(self.entries), problem)
        self.room.warn_of_pins(self.entries)

    def _load_again(self, name: str | None) -> ModelEntry | None:
        self._look_again(name)
        entry = self.entries.get(name) if name is not None else None
        if entry is not None and entry.loading is not None:
            entry.loading.wait()
        return entry

    def _look_again(self, name: str | None = None, *, watching: bool = False) -> None:
        """Scan the store and load what has changed. A named model is loaded even if it was refused before."""
        with self._looking:
            missing = self._look(name)
            if name is not None:
                if missing and (name not in self.entries or self.entries[name].model is not None):
                    raise RequestError(Reason.REFUSED, f"`{name[:80]}`: {missing}")
                entry = self.entries.get(name)
                if entry is None:
                    raise RequestError(
                        Reason.UNKNOWN_MODEL, f"{self._settings.models} holds no model `{name[:80]}`: export it first."
                    )
                self._unloaded.discard(name)
                if not (entry.is_loading or (self.budget.on and entry.is_current)):  # it may not have room for two
                    entry.tried, entry.failed = None, frozenset()
            self._load_all(watching=watching)

    def _look(self, named: str | None = None) -> str:
        """Update the entries from the store. A served model whose folder was removed stays.

        Returns:
            What is missing in the folder of the model `named`; empty if nothing is.
        """
        found = self._scan.look(incomplete=not self._started)
        latest = found.latest
        wanted = [*self._wanted, *self._unloaded.asked_for()] if self._wanted else list(latest)
        entries = {
            name: entry
            for name, entry in self.entries.items()
            if name in latest or entry.settled or (name in found.missing and entry.state is State.FAILED)
        }
        for name in dict.fromkeys([*wanted, *entries, *([named] if named else [])]):
            older = found.older.get(name, ())
            if name in latest and name in entries:
                entry = entries[name]
                entry.stored, entry.older = latest[name], older
                if entry.card is None and entry.model is None and entry.likely.card is not None:  # it could not be read
                    entry.pinned = self.room.pins(entry.likely.card)
            elif name in latest:
                began = not self._started and self._unloaded.awaits(name)
                awaited = began or bool(self.problem) or name in self._wanted
                card = next((each.card for each in (latest[name], *older) if each.card is not None), None)
                entries[name] = ModelEntry(latest[name], older, awaited=awaited, pinned=self.room.pins(card))
            if name in entries:
                entries[name].whole = name in latest
        self.problem, self.entries = self._lacking(entries, found), entries
        return found.missing.get(named, "") if named else ""

    def _lacking(self, entries: dict[str, ModelEntry], found: Found) -> str:
        """Return a message about models that the settings name and the store does not have; empty without any."""
        lacking = [name for name in self._wanted if name not in entries]
        if entries and not lacking:
            return ""
        reasons = f" that can be used ({found.skipped})" if found.skipped else ""
        return (
            f"{self._settings.models} does not hold {', '.join(lacking) or 'a single model'}{reasons}. Export it with "
            f"`zooserve export {' '.join(lacking) or '--default'}`, or point ZOOSERVE_MODELS at the right folder."
        )

    def _load_all(self, *, watching: bool = False) -> None:
        """Load and unload models as needed: default models first, small ones before large ones.

        Args:
            watching: whether this is a regular scan, not an administrator's. A folder that fails a check may then be
                incomplete, and is refused only if it has not changed since the previous scan.
        """
        order = sorted(
            self.entries.values(), key=lambda e: (not (e.card and e.card.task_default), e.card.size if e.card else 0)
        )
        for entry in order:
            if self._stop.is_set():
                return
            if entry.name in self._unloaded:
                if entry.state is not State.UNLOADED:
                    self._loader.unload(entry)
                continue
            # A running loading may have read older files than the folder has now: the next scan compares them.
            if not entry.whole or entry.is_loading:
                continue
            fingerprint = fingerprint_of(entry.stored)
            if fingerprint == entry.tried:
                continue
            if entry.model is None and self.room.waits(entry, self.entries.values()):
                entry.tried = fingerprint
            elif entry.model is None or self.room.has_room(entry, self.entries.values()):
                final = not watching or fingerprint == entry.changing
                entry.tried, entry.changing = fingerprint, None
                self._loader.load(entry, final=final, fall_back=not self._started)
