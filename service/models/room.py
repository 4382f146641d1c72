"""Which models are loaded now, within the budget for memory. The repository asks, `on_demand` makes room."""

import logging
from collections.abc import Callable, Collection, Iterable

from service.models.budget import Budget
from service.models.entry import ModelEntry, State, fingerprint_of
from service.models.footprint import Footprint, Footprints
from service.models.loader import Loader
from zoo.served_card import AnyServed
from zoo.store import Entry

logger = logging.getLogger(__name__)


class Room:
    """Decides for models that are not asked for: at the start, and when the store has a new version.

    Args:
        budget: for all models.
        footprints: what each takes.
        loader: refuses those for which there is never room.
        pinned: names of models that stay loaded, beside those whose card says so and the tasks' defaults.

    Attributes:
        make: reserves memory for a load beside all that is loaded, and says whether it could; `on_demand` sets it.
    """

    def __init__(self, budget: Budget, footprints: Footprints, loader: Loader, pinned: Collection[str] = ()) -> None:
        self._budget, self._footprints, self._loader, self._pinned = budget, footprints, loader, pinned
        self.make: Callable[[ModelEntry, Footprint], bool] = lambda *_: True

    def pins(self, card: AnyServed | None) -> bool:
        """Return whether a model is loaded at the start, and stays."""
        return not self._budget.on or card is None or card.task_default or card.pinned or card.name in self._pinned

    def warn_of_pins(self, names: Collection[str]) -> None:
        """Say in the log which models are to stay loaded and are none of `names`, those that there are."""
        if unknown := [name for name in self._pinned if self._budget.on and name not in names]:
            logger.warning("ZOOSERVE_PIN names %s, and there is no such model", ", ".join(unknown))

    def weigh(self, entry: ModelEntry) -> None:
        """Find out what a model that is not loaded takes, where there is a budget."""
        entry.footprint = self._need(entry, entry.likely)

    def waits(self, entry: ModelEntry, entries: Iterable[ModelEntry]) -> bool:
        """Whether a model is not loaded now: not before it is asked for, or as there is never room for it."""
        if not entry.pinned:
            entry.state, entry.card, entry.reason = State.ON_DEMAND, entry.likely.card, ""
            if fingerprint_of(entry.stored) not in entry.failed:
                entry.refused = ""  # that was said of a folder before it
            return True
        self.weigh(entry)
        if reason := self._budget.refusal(entry.footprint, entries):
            self._loader.refuse(entry, entry.stored, reason)
        else:
            entry.reserved = entry.footprint
        return reason != ""

    def has_room(self, entry: ModelEntry, entries: Iterable[ModelEntry]) -> bool:
        """Whether a new version of a loaded model can be loaded now, beside it; reserves what that takes.

        If there is never room, it is refused; if there is none now, it is tried again at the next look.
        """
        if not self._budget.on:
            return True
        need = self._need(entry, entry.stored)
        if reason := self._budget.refusal(need, entries, [entry.name]):
            entry.tried = fingerprint_of(entry.stored)
            self._loader.refuse(entry, entry.stored, reason)
            return False
        if not self.make(entry, need):
            version = entry.stored.version
            entry.refused = f"version {version} in the store waits: all models that would make room for it are in use"
            return False
        return True

    def _need(self, entry: ModelEntry, folder: Entry) -> Footprint:
        card = folder.card
        return self._footprints.measure(card, folder.path) if self._budget.on and card else entry.footprint
