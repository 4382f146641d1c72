"""The models of a front: those of the engine, as it tells them. Stands in the place of `Repository` and `OnDemand`."""

import asyncio
import os
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from time import perf_counter

from service.engine.workers import Workers
from service.errors import Reason, RequestError
from service.fronts.link import Link
from service.fronts.memory import ModelMemory
from service.fronts.messages import EntryState, Table, card_of
from service.fronts.remote import Connection, FrontModel
from service.models.entry import ModelEntry, State
from service.models.footprint import Footprint
from service.models.registry import Registry
from service.settings import Settings
from zoo.store import Entry

_STAY_S = 2.0  # that a model which is not served any more stays for requests that have just found it


class FrontRegistry(Registry):
    """All models of the engine, with their states.

    Args:
        settings: of the server.
        address: of the engine; see `channel.listen`.
        workers: the threads of this front.

    Attributes:
        link: to the engine.
    """

    def __init__(self, settings: Settings, address: int, workers: Workers) -> None:
        super().__init__(settings)
        self.known = False
        self._settings, self._workers = settings, workers
        self.link = Link(address, self._follow, self._lost)
        self._models: dict[int, FrontModel] = {}
        self._then: Callable[[], None] | None = None
        self._first = threading.Event()

    @property
    def ready(self) -> bool:
        """Whether the engine is there, and has all models that stay loaded."""
        return self.known and self.link.connection is not None and super().ready

    def resident(self, entry: ModelEntry) -> Footprint:  # noqa: ARG002 - the engine has all models
        """Nothing is in this process."""
        return Footprint()

    def load(self) -> None:
        """Wait until the engine has told its models."""
        self.link.start()
        self._first.wait()

    def load_in_background(self, then: Callable[[], None]) -> None:
        """Connect to the engine.

        Args:
            then: called once, when the models are known and none is being loaded.
        """
        self._then = then
        self.link.start()

    def close(self) -> None:
        """End the connection."""
        self.link.close()

    def reload(self, name: str | None = None) -> bool:
        """Let the engine scan the store; see `Repository.reload`."""
        return self.link.call("reload", name).result()

    def unload(self, name: str) -> None:
        """Let the engine unload a model; see `Repository.unload`."""
        self.link.call("unload", name).result()

    def silent(self) -> float:
        """Seconds for which the engine has not shown that it lives; 0 while there is none."""
        return self.link.silent

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
            timer = threading.Timer(_STAY_S, self._drop_unserved, [connection])
            timer.daemon = True
            timer.start()
        self.known = True
        self._first.set()
        if self._then is not None and not any(entry.state is State.LOADING for entry in self.entries.values()):
            then, self._then = self._then, None
            then()

    def _served(self) -> set[int]:
        return {model.number for entry in self.entries.values() if isinstance(model := entry.model, FrontModel)}

    def _drop_unserved(self, connection: Connection) -> None:
        """Let go of models that were replaced or unloaded a while ago, and that no request of this front needs."""
        if connection is not self.link.connection:
            return
        serves = self._served()
        for number, model in list(self._models.items()):
            if number not in serves and not model.usage.holds and not model.batcher.pending:
                self._models.pop(number, None)
                if connection.queues.get(number) is model.batcher:
                    del connection.queues[number]

    def _entry(self, connection: Connection, told: EntryState, files: Iterator[int]) -> ModelEntry:
        card = card_of(told.card)
        stored = Entry(told.name, told.version, Path(told.folder), card)
        entry = ModelEntry(stored, awaited=told.awaited, pinned=told.pinned)
        entry.state, entry.reason, entry.refused, entry.awaited = told.state, told.reason, told.refused, told.awaited
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
            entry = entries[name] = ModelEntry(old.stored, awaited=old.pinned, pinned=old.pinned)
            entry.state, entry.reason, entry.card, entry.footprint = old.state, old.reason, old.card, old.footprint
            if old.state is State.READY:
                entry.state = State.LOADING if old.pinned else State.ON_DEMAND
        self.entries = entries
        self._models = {}


class FrontLoads:
    """Models are loaded on demand by the engine; see `OnDemand`."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def start(self) -> None:
        """The engine has begun."""

    def stop(self) -> None:
        """The engine ends by itself."""

    async def wait(self, entry: ModelEntry, deadline: float, beside: Collection[str] = ()) -> None:
        """Wait until a model is loaded."""
        await self._ask("wait", entry.name, deadline, beside)

    async def load(self, name: str, deadline: float) -> None:
        """Load a model for an administrator."""
        await self._ask("load", name, deadline)

    async def _ask(self, what: str, name: str, deadline: float, beside: Collection[str] = ()) -> None:
        asked = asyncio.wrap_future(self._link.call(what, name, deadline, list(beside)))
        try:
            async with asyncio.timeout(max(0.0, deadline - perf_counter()) + 1.0):
                await asked
        except TimeoutError:  # the engine says it in time, unless it hangs
            raise RequestError(Reason.NOT_READY, f"`{name}` is not loaded in time.", retry_after=1) from None
