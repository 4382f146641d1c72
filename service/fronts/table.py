"""What the engine tells fronts of its models: states, cards, and where the memory of each is.

The repository's entries change on several threads. They are looked at often, and only what is new is sent.
"""

import asyncio
from collections.abc import Iterable, Mapping
from time import perf_counter
from typing import cast

import msgspec
from msgspec import Raw

from service.fronts.channel import Kind
from service.fronts.front import Front
from service.fronts.messages import EntryState, ServedModel, entry_state
from service.fronts.rows import Shared, SharedRows, SharedTensors
from service.models.entry import ModelEntry
from service.models.model import LoadedModel
from service.models.registry import Registry
from service.models.usage import Usage

_STAY_S = 1.0  # that a model which is not served any more stays for requests that have just found it
_CLOSING_S = 0.02  # in which a front that has found a model holds it
_CHANGES = 100  # models in one message
_encode = msgspec.json.Encoder().encode


class SharedUsage(Usage):
    """The use of a model by all fronts."""

    __slots__ = ("_shared",)

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        super().__init__()

    @property
    def holds(self) -> int:
        """Requests under way, of all fronts."""
        return sum(self._shared.memory.holds)

    @holds.setter
    def holds(self, value: int) -> None:
        """Fronts count."""

    async def close(self) -> bool:
        """Say whether it may be unloaded, after no front can begin to use it any more."""
        memory = self._shared.memory
        memory.closing[0] = 1
        try:
            await asyncio.sleep(_CLOSING_S)
        except BaseException:  # whoever needs its memory does not wait any longer: it goes on answering
            memory.closing[0] = 0
            raise
        if self.holds:
            memory.closing[0] = 0
            return False
        return True


class Table:
    """The models of a repository, as fronts are told of them. Only on the event loop.

    Attributes:
        number: of the last change.
        served: the models that fronts may ask, by number; also those that were replaced and are still in use.
    """

    def __init__(self, repository: Registry) -> None:
        self.number = 0
        self.served: dict[int, LoadedModel] = {}
        self._repository = repository
        self._unserved: dict[int, float] = {}  # since when a model is not in the table any more
        self._keys: dict[str, tuple[object, ...]] = {}  # by name, what was encoded
        self._encoded: dict[str, tuple[bytes, int]] = {}  # by name, an entry, and its model's number or 0
        self._said: tuple[str, list[str]] = ("", [])

    def changed(self) -> bool:
        """Look at the entries; say whether there is something to tell."""
        entries = self._repository.entries
        said = self._repository.problem, list(entries)
        news = said != self._said
        for name, entry in entries.items():
            model = cast(LoadedModel | None, entry.model)
            key = (entry.state, entry.reason, entry.refused, entry.card, entry.stored, model, entry.footprint)
            if self._keys.get(name) != key:
                self._keys[name] = key
                self._encoded[name] = _encode(self._state(entry, model)), shared_of(model).number if model else 0
                news = True
        if news:
            self._said = said
            self._keys = {name: self._keys[name] for name in entries}
            self._encoded = {name: self._encoded[name] for name in entries}
            self.number += 1
        self._drop_unserved()
        return news

    def tell(self, fronts: Iterable[Front]) -> None:
        """Tell fronts what they do not know."""
        problem, names = self._said
        for front in fronts:
            fresh = [name for name in names if front.told.get(name) != self._encoded[name][0]]
            for first in range(0, max(1, len(fresh)), _CHANGES):
                some = {name: self._encoded[name] for name in fresh[first : first + _CHANGES]}
                files = [shared_of(self.served[number]).memory.file for _, number in some.values() if number]
                table: Mapping[str, object] = {
                    "number": self.number if first + _CHANGES >= len(fresh) else 0,
                    "names": names,
                    "changed": [Raw(entry) for entry, _ in some.values()],
                    "problem": problem,
                }
                front.send(Kind.TABLE, [_encode(table)], files)
            front.told = {name: entry for name, (entry, _) in self._encoded.items()}

    def _state(self, entry: ModelEntry, model: LoadedModel | None) -> EntryState:
        served = None
        if model is not None:
            shared = shared_of(model)
            if shared.number not in self.served:
                self.served[shared.number] = model
                model.usage = SharedUsage(shared)
            card, layout = Raw(_encode(model.card)), shared.memory.layout
            served = ServedModel(shared.number, str(model.folder), card, model.provider, model.profile, layout)
        return entry_state(entry, served)

    def _drop_unserved(self) -> None:
        """Let go of the models that are not served any more, once no request needs them."""
        serves = {number for _, number in self._encoded.values()}
        now = perf_counter()
        for number, model in list(self.served.items()):
            if number in serves:
                continue
            memory, since = shared_of(model).memory, self._unserved.setdefault(number, now)
            if memory.closing[0] or (now - since > _STAY_S and not any(memory.holds) and not model.batcher.pending):
                del self.served[number], self._unserved[number]


def shared_of(model: LoadedModel) -> Shared:
    """Return the assembly of a model of the engine's process, which `Engine.assemble` made."""
    assert isinstance(model.assembly, SharedRows | SharedTensors)  # noqa: S101 - as it says
    return model.assembly
