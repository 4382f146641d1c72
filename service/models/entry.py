"""The state of one model of the store. The repository has an entry for each."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from service.models.footprint import Footprint
from service.models.loading import Loading
from service.models.model import AnyModel, LoadedModel
from service.tasks import Operation, can_answer
from zoo.files import shown
from zoo.served_card import ServedCard
from zoo.store import Entry, Stamps

Fingerprint = tuple[Path, Stamps]  # a folder, and the stamps of its files
LONGEST_REASON = 2000
"""The most characters of the reason why a model is not served; it may quote text from the model's folder."""


class State(StrEnum):
    """The state of a model. `unloaded` was so by hand, and `on_demand` is loaded when it is asked for."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    UNLOADED = "unloaded"
    ON_DEMAND = "on_demand"


class ModelEntry:
    """One model: the version that is served, or the reason why none is.

    The repository changes it, one thread at a time (`Repository`). The event loop reads it without a lock, since each
    attribute is replaced in one step.

    Attributes:
        name: of the model.
        stored: the latest folder of that name in the store.
        older: the folders of the versions before it, the newest first.
        failed: folders that were loaded and failed a check, until an administrator asks for the model.
        card: of the served model, or else of the folder; None if that cannot be read.
        state: of the model.
        reason: why no version is served.
        refused: why the newest folder in the store is not the one that is served.
        model: answers requests. A request that began with a replaced model finishes with it.
        tried: the folder that was loaded or refused last.
        changing: a folder that failed a check and had changed shortly before.
        loading: the last loading of the folder, running or ended.
        whole: whether the store now has the folder, with all files that its card names.
        awaited: whether the server is not ready before this model is; not if the model was added after the start, to
            others, and the settings do not name it.
        pinned: whether it is loaded at the start and stays; without a budget for memory all are.
        footprint: what it takes when it is loaded; 0 before it is first asked for, or without a budget.
        reserved: what is kept free for the load that is under way, or about to begin.
    """

    def __init__(
        self, stored: Entry, older: Sequence[Entry] = (), *, awaited: bool = True, pinned: bool = True
    ) -> None:
        self.name = stored.name
        self.stored, self.older = stored, older
        self.failed: frozenset[Fingerprint] = frozenset()
        self.card = self.likely.card
        self.reason = shown(stored.problem, LONGEST_REASON)
        self.refused = ""
        self.state = State.LOADING if self.card or not awaited else State.FAILED
        if self.card and not pinned:
            self.state = State.ON_DEMAND
        self.model: AnyModel | None = None
        self.tried: Fingerprint | None = None
        self.changing: Fingerprint | None = None
        self.loading: Loading[LoadedModel] | None = None
        self.whole = True
        self.awaited = awaited and pinned
        self.pinned = pinned
        self.footprint = Footprint()
        self.reserved = Footprint()

    @property
    def is_loading(self) -> bool:
        """Whether a folder is being loaded."""
        return self.loading is not None and not self.loading.over

    @property
    def is_current(self) -> bool:
        """Whether the folder that the store has is served as it is."""
        return self.model is not None and not self.refused and self.tried == fingerprint_of(self.stored)

    @property
    def settled(self) -> bool:
        """Whether the entry stays if its folder is removed: it is served, being loaded, or was unloaded by hand."""
        return self.model is not None or self.is_loading or self.state is State.UNLOADED

    @property
    def versions(self) -> list[Entry]:
        """The folders of which the first that passes all checks is served: the newest first, without failed ones."""
        return [each for each in (self.stored, *self.older) if fingerprint_of(each) not in self.failed] or [self.stored]

    @property
    def likely(self) -> Entry:
        """The first of `versions` whose card can be read; the newest folder if none can."""
        return next((each for each in self.versions if each.card is not None), self.stored)

    def answers(self, operation: Operation) -> bool:
        """Return whether the model answers a task."""
        return isinstance(self.card, ServedCard) and can_answer(self.card, operation)


def fingerprint_of(folder: Entry) -> Fingerprint:
    """Return what changes with a folder's files."""
    return folder.path, folder.stamps
