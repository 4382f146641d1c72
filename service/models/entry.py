"""One model's place among those that are served: what is served there, or why nothing is. The repository keeps it."""

from enum import StrEnum
from pathlib import Path

from service.models.model import AnyModel
from service.models.loading import Loading
from zoo.card import Task
from zoo.files import shown
from zoo.store import Entry, Stamps

Fingerprint = tuple[Path, Stamps]  # a folder, and the stamps of its files
LONGEST_REASON = 2000
"""Characters of why a model is not served: some of it is text out of its folder."""


class State(StrEnum):
    """How a model is."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    UNLOADED = "unloaded"


class ModelEntry:
    """One model's place: what is served there, or why nothing is.

    Attributes:
        card: of the model that is served, or else of the folder; None where that cannot be read.
        reason: why nothing is served.
        refused: why the folder that the store holds now is not the one that is served.
        model: what answers. It is replaced in one step, and whoever still holds the old one can finish with it.
        loading: of the folder, while it is under way and after.
        whole: whether the store holds the folder now, with all that its card names.
        awaited: whether the server is not ready before this model is; one that came later is not waited for.
    """

    def __init__(self, entry: Entry, *, awaited: bool = True) -> None:
        self.name = entry.name
        self.entry = entry
        self.card = entry.card
        self.reason = shown(entry.problem, LONGEST_REASON)
        self.refused = ""
        self.state = State.LOADING if entry.card or not awaited else State.FAILED
        self.model: AnyModel | None = None
        self.tried: Fingerprint | None = None  # the folder that was loaded, or refused, last
        self.changing: Fingerprint | None = None  # the folder that failed a check, but was changing
        self.loading: Loading[AnyModel] | None = None
        self.whole = True
        self.awaited = awaited

    @property
    def settled(self) -> bool:
        """Whether it stays although its folder does not: it is served, being loaded, or was unloaded by hand."""
        loading = self.loading is not None and not self.loading.over
        return self.model is not None or loading or self.state is State.UNLOADED

    def answers(self, task: Task) -> bool:
        """Whether the model is one for `task`."""
        return self.card is not None and self.card.task == task
