"""The models of one engine, as it tells them to a front: `registry` puts those of all engines together."""

import os
import threading
from collections.abc import Callable, Iterator
from copy import copy
from pathlib import Path

from service.engine.workers import Workers
from service.fronts.connection import Connection
from service.fronts.link import Link
from service.fronts.memory import ModelMemory
from service.fronts.messages import EntryState, Table, card_of
from service.fronts.remote import FrontModel
from service.models.entry import ModelEntry, State
from service.settings import Settings
from zoo.store import Entry

_STAY_S = 2.0  # that a model which is not served any more stays for requests that have just found it


class ToldModels:
    """All models of an engine, with their states.

    Args:
        number: of the engine, from 0.
        settings: of the server.
        address: of the engine; see `channel.listen`.
        workers: the threads of this front.
        changed: called after each change.

    Attributes:
        link: to the engine.
        entries: by name. The dictionary is replaced, never changed.
        problem: see `Registry`.
        known: whether the engine has told all its models.
    """

    def __init__(
        self, number: int, settings: Settings, address: int, workers: Workers, changed: Callable[[], None]
    ) -> None:
        self.number = number
        self.entries: dict[str, ModelEntry] = {}
        self.problem = ""
        self.known = False
        self.link = Link(address, self._follow, self._lost)
        self._settings, self._workers, self._changed = settings, workers, changed
        self._models: dict[int, FrontModel] = {}
        self._dropping: Connection | None = None  # whose models a timer will look at

    @property
    def whole(self) -> bool:
        """Whether the engine is there, shows that it lives, and loads no model that stays loaded."""
        loading = any(entry.state is State.LOADING and entry.pinned for entry in self.entries.values())
        connection = self.link.connection
        return self.known and connection is not None and connection.responds and not loading

    def _follow(self, connection: Connection, table: Table, files: list[int]) -> None:
        """Take over what the engine tells. On the thread of the connection."""
        left = iter(files)
        entries = dict(self.entries)
        for told in table.changed:
            entries[told.name] = self._entry(connection, told, left)
        for file in left:
            os.close(file)
        self.problem = table.problem
        self.entries = {name: entries[name] for name in table.names if name in entries}
        if not table.number:
            return  # further messages follow
        if len(self._models) > len(self._served()):
            self._drop_later(connection)
        self.known = True
        self._changed()

    def _served(self) -> set[int]:
        return {model.number for entry in self.entries.values() if isinstance(model := entry.model, FrontModel)}

    def _drop_later(self, connection: Connection) -> None:
        if self._dropping is connection:
            return
        self._dropping = connection
        timer = threading.Timer(_STAY_S, self._drop_unserved, [connection])
        timer.daemon = True
        timer.start()

    def _drop_unserved(self, connection: Connection) -> None:
        """Let go of models that were replaced or unloaded a while ago, and that no request of this front needs."""
        if self._dropping is connection:
            self._dropping = None
        if connection is not self.link.connection:
            return
        serves = self._served()
        for number, model in list(self._models.items()):
            if number not in serves and not model.usage.holds and not model.batcher.pending:
                self._models.pop(number, None)
                if connection.queues.get(number) is model.batcher:
                    del connection.queues[number]
        if len(self._models) > len(serves):
            self._drop_later(connection)  # a request still needs one

    def _entry(self, connection: Connection, told: EntryState, files: Iterator[int]) -> ModelEntry:
        card = card_of(told.card)
        stored = Entry(told.name, told.version, Path(told.folder), card)
        entry = ModelEntry(stored, awaited=told.awaited, pinned=told.pinned)
        entry.state, entry.reason, entry.refused = told.state, told.reason, told.refused
        entry.footprint = told.footprint
        if told.model is not None:
            file = next(files)
            model = self._models.get(told.model.number)
            if model is None:
                memory = ModelMemory(told.model.layout, file)
                model = FrontModel(told.model, memory, connection, self._workers, self._settings.max_queue)
                self._models[model.number] = model
                connection.queues[model.number] = model.batcher
            else:
                os.close(file)
            entry.model = model
        return entry

    def _lost(self) -> None:
        """Let all models be loaded anew: the engine has ended."""
        entries = {}
        for name, old in self.entries.items():
            entry = entries[name] = copy(old)
            entry.awaited = old.pinned and (old.awaited or old.model is not None)
            entry.model, entry.refused = None, ""
            if old.state is State.READY:
                entry.state = State.LOADING if old.pinned else State.ON_DEMAND
        self.entries = entries
        self._models = {}
        self._changed()
