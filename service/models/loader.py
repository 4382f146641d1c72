"""Loads a model's folder, and either replaces the served model or refuses the folder. The repository calls it."""

import logging
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from service.engine.stop import Stop
from service.models.entry import LONGEST_REASON, Fingerprint, ModelEntry, State, fingerprint_of
from service.models.footprint import Footprint, Footprints
from service.models.loading import Loading
from service.models.model import AnyModel, LoadedModel
from service.settings import Settings
from service.telemetry.metrics import Metrics
from zoo.errors import StoreError
from zoo.files import shown
from zoo.store import Entry

logger = logging.getLogger(__name__)
_PATIENCE = 60.0  # seconds after which the next model is loaded in parallel
Load = Callable[[Path, Stop], LoadedModel]
SelfTest = Callable[[LoadedModel], None]


class Loader:
    """Changes which model a `ModelEntry` serves.

    Args:
        settings: limit the time of a loading.
        metrics: get every model's state.
        load: verifies and loads a folder; raises if it cannot be served.
        self_test: called with each loaded model before it is served; raises if its answers are wrong.
        footprints: told what each model takes.

    Attributes:
        changes: how often a model was loaded, refused or unloaded.
    """

    def __init__(
        self, settings: Settings, metrics: Metrics, load: Load, self_test: SelfTest, footprints: Footprints
    ) -> None:
        self.changes = 0
        self._limit = settings.load_s
        self._metrics = metrics
        self._load, self._self_test, self._footprints = load, self_test, footprints

    def load(self, entry: ModelEntry, *, final: bool, fall_back: bool = False) -> None:
        """Load the entry's folder on its own thread. If that takes long, return before it ends.

        Args:
            entry: whose folder has changed.
            final: whether a folder that fails a check is refused. Otherwise it may still be changing, and is tried
                again at the next look.
            fall_back: whether the first older version that can be served is, where the entry's folder is refused.
        """
        start, stored, fingerprint = perf_counter(), entry.stored, entry.tried
        folders = entry.versions if fall_back else [stored]
        refusals: dict[Fingerprint, Exception] = {}
        weighed: Footprint | None = None  # of an older version: `reserved` is that of the newest
        if entry.model is None:
            entry.state, entry.reason = State.LOADING, ""

        def work(stop: Stop) -> LoadedModel:
            nonlocal start, weighed
            for folder in folders:
                if refusals and folder.card is not None and entry.reserved.most:
                    weighed = self._footprints.measure(folder.card, folder.path)
                start = perf_counter()
                try:
                    return self._tested(folder, stop)
                except Exception as error:
                    # Its traceback would keep what was loaded, beside the version that is loaded next.
                    error.__traceback__ = error.__cause__ = error.__context__ = None
                    refusals[fingerprint_of(folder)] = error
                    if stop.asked:
                        break
                    if folder is not stored:
                        logger.warning("%s is not served in its place: %s", folder.path, shown(error, LONGEST_REASON))
            raise next(iter(refusals.values()))

        def finish(outcome: LoadedModel | BaseException) -> None:
            reserved, entry.reserved = entry.reserved, Footprint()
            if not isinstance(outcome, BaseException):
                entry.footprint = weighed or (reserved if reserved.most else entry.footprint)
                known, entry.failed = entry.refused, entry.failed.union(list(refusals))
                self._serve(entry, outcome, perf_counter() - start)
                if fingerprint_of(stored) in refusals:
                    self.refuse(entry, stored, shown(refusals[fingerprint_of(stored)], LONGEST_REASON))
                elif fingerprint_of(stored) in entry.failed:
                    entry.refused = known
            elif isinstance(outcome, StoreError) and not final:
                entry.tried, entry.changing = None, fingerprint
                logger.info("%s is looked at again, as it is changing: %s", stored.path, shown(outcome, LONGEST_REASON))
            else:
                entry.failed = entry.failed.union(list(refusals))
                self.refuse(entry, stored, shown(outcome, LONGEST_REASON))

        entry.loading = Loading(entry.name, work, finish, self._limit)
        patience = min(_PATIENCE, self._limit / 4) if self._limit else _PATIENCE
        if not entry.loading.wait(patience):
            logger.warning("%s is still being loaded after %g s; others are loaded meanwhile", entry.name, patience)

    def _tested(self, folder: Entry, stop: Stop) -> LoadedModel:
        model = self._load(folder.path, stop)
        self._self_test(model)
        model.golden.clear()
        return model

    def unload(self, entry: ModelEntry) -> None:
        """Stop serving a model. Its queued requests are still answered."""
        if entry.loading is not None:
            entry.loading.drop()
        self.changes += 1
        entry.reserved = Footprint()
        entry.awaited = False
        old, entry.model = entry.model, None
        entry.state, entry.tried, entry.refused = State.UNLOADED, None, ""
        entry.reason = f"it was unloaded; POST /v1/models/{entry.name}/load loads it again"
        if old is not None:
            self._count(old, served=False)
        logger.info("%s was unloaded", entry.name)

    def evict(self, entry: ModelEntry, why: str) -> AnyModel | None:
        """Stop serving a model until it is asked for again, and return it. On the event loop.

        Args:
            entry: that no request uses.
            why: for the metrics: `memory` or `idle`.
        """
        old, entry.model = entry.model, None
        if old is None:
            return None
        entry.state = State.ON_DEMAND
        self.changes += 1
        self._count(old, served=False)
        self._metrics.evictions.labels(entry.name, why).inc()
        return old

    def _serve(self, entry: ModelEntry, model: AnyModel, seconds: float) -> None:
        """Serve a model instead of the entry's previous one."""
        self._footprints.note(model.card, seconds)
        old, entry.model = entry.model, model
        entry.card, entry.reason, entry.refused, entry.state = model.card, "", "", State.READY
        entry.awaited = False
        self.changes += 1
        if old is not None:
            self._count(old, served=False)
        self._count(model, served=True)
        self._metrics.load.labels(entry.name).observe(seconds)
        logger.info(
            "%s is ready after %.1f s: %s, %.1f ms per image or row, batches of up to %d",
            f"{entry.name} version {model.card.version}" if old else entry.name,
            seconds,
            model.provider,
            1000 * model.profile.seconds[1],
            model.profile.max_batch,
        )

    def refuse(self, entry: ModelEntry, stored: Entry, reason: str) -> None:
        """Record why the folder is not served. A model that is being served stays."""
        self.changes += 1
        if entry.model is not None:
            entry.refused = f"version {stored.version} in the store is refused: {reason}"
            self._metrics.refused.labels(entry.name).inc()
            logger.error("%s answers with version %s: %s", entry.name, entry.model.card.version, entry.refused)
            return
        entry.card, entry.reason, entry.state = stored.card, reason, State.FAILED
        self._metrics.model_ready.labels(entry.name).set(0)
        logger.error("%s is not served: %s", entry.name, reason)

    def _count(self, model: AnyModel, *, served: bool) -> None:
        """Record in the metrics whether a model is served."""
        card = model.card
        self._metrics.model_ready.labels(card.name).set(served)
        self._metrics.model_info.labels(card.name, card.version, model.provider, card.precision, card.sha256).set(
            served
        )
