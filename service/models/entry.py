"""One model of the store, and whether it is served. The repository keeps an entry for each."""

from enum import StrEnum
from pathlib import Path

from service.models.loading import Loading
from service.models.model import AnyModel
from zoo.card import Task
from zoo.files import shown
from zoo.store import Entry, Stamps

Fingerprint = tuple[Path, Stamps]  # a folder, and the stamps of its files
LONGEST_REASON = 2000
"""Characters of why a model is not served: some of it is text out of its folder."""


class State(StrEnum):
    """Whether a model answers."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    UNLOADED = "unloaded"


class ModelEntry:
    """One model: what is served, or why nothing is.

    The repository changes it, one thread at a time (`Repository`); the event loop reads it, without a lock: each
    attribute is replaced in one step.

    Attributes:
        name: of the model.
        stored: the latest folder of that name in the store.
        card: of the model that is served, or else of the folder; None where that cannot be read.
        state: whether it answers.
        reason: why nothing is served.
        refused: why the folder that the store holds now is not the one that is served.
        model: what answers. A request that began with an old one finishes with it.
        tried: the folder that was loaded, or refused, last.
        changing: the folder that failed a check, but was changing.
        loading: of the folder, while it is under way and after.
        whole: whether the store holds the folder now, with all files that its card names.
        awaited: whether the server is not ready before this model is; a model that was added later is not waited for.
    """

    def __init__(self, stored: Entry, *, awaited: bool = True) -> None:
        self.name = stored.name
        self.stored = stored
        self.card = stored.card
        self.reason = shown(stored.problem, LONGEST_REASON)
        self.refused = ""
        self.state = State.LOADING if stored.card or not awaited else State.FAILED
        self.model: AnyModel | None = None
        self.tried: Fingerprint | None = None
        self.changing: Fingerprint | None = None
        self.loading: Loading[AnyModel] | None = None
        self.whole = True
        self.awaited = awaited

    @property
    def is_loading(self) -> bool:
        """Whether a folder is being loaded now."""
        return self.loading is not None and not self.loading.over

    @property
    def settled(self) -> bool:
        """Whether the entry stays without its folder: it is served, being loaded, or was unloaded by hand."""
        return self.model is not None or self.is_loading or self.state is State.UNLOADED

    def answers(self, task: Task) -> bool:
        """Whether the model is one for `task`."""
        return self.card is not None and self.card.task == task
