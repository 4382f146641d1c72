"""The models of a front: those of all engines, as they tell them. In the place of `Repository` and `OnDemand`."""

import asyncio
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from copy import copy
from time import perf_counter
from zlib import crc32

from service.engine.workers import Workers
from service.errors import Reason, RequestError
from service.fronts.balanced import BalancedModel
from service.fronts.link import Link
from service.fronts.remote import FrontModel
from service.fronts.told import ToldModels
from service.models.entry import ModelEntry, State
from service.models.footprint import Footprint
from service.models.registry import Registry
from service.settings import Settings

# Of a model whose state differs between engines, the first of these counts: it is what a request would meet.
_STATES = (State.READY, State.LOADING, State.ON_DEMAND, State.FAILED, State.UNLOADED)


class FrontRegistry(Registry):
    """All models of the engines, with their states.

    Args:
        settings: of the server.
        addresses: of the engines; see `channel.listen`.
        workers: the threads of this front.

    Attributes:
        links: to the engines.
    """

    def __init__(self, settings: Settings, addresses: Sequence[int], workers: Workers) -> None:
        super().__init__(settings)
        self.known = False
        self._engines = [
            ToldModels(number, settings, address, workers, self._merge) for number, address in enumerate(addresses)
        ]
        self.links = [engine.link for engine in self._engines]
        self._merging = threading.Lock()  # each engine tells on a thread of its own
        self._then: Callable[[], None] | None = None
        self._first = threading.Event()

    @property
    def ready(self) -> bool:
        """Whether an engine is there, and all models that stay loaded are on one."""
        return self.known and any(link.connection for link in self.links) and super().ready

    def resident(self, entry: ModelEntry) -> Footprint:  # noqa: ARG002 - the engines have all models
        """Nothing is in this process."""
        return Footprint()

    def load(self) -> None:
        """Wait until an engine has told its models."""
        self._start()
        self._first.wait()

    def load_in_background(self, then: Callable[[], None]) -> None:
        """Connect to the engines.

        Args:
            then: called once, when the models are known and none is being loaded.
        """
        self._then = then
        self._start()

    def _start(self) -> None:
        for link in self.links:
            link.start()

    def close(self) -> None:
        """End the connections."""
        for link in self.links:
            link.close()

    def reload(self, name: str | None = None) -> bool:
        """Let the engines scan the store; see `Repository.reload`."""
        if name is None:
            calls = [link.call("reload") for link in self.links if link.connection] or [self.links[0].call("reload")]
            return max([call.result() for call in calls])
        first, others = self.order(name)
        result = first.call("reload", name).result()
        _all_follow(others)
        return result

    def unload(self, name: str) -> None:
        """Let the engines unload a model; see `Repository.unload`."""
        first, others = self.order(name)
        first.call("unload", name).result()
        _all_follow(others)

    def engines(self) -> int:
        """How many engines are there, and have loaded all models that stay loaded."""
        return sum(engine.whole for engine in self._engines)

    def silent(self) -> float:
        """Seconds for which no engine has shown that it lives."""
        return min(link.silent for link in self.links)

    def order(self, name: str) -> tuple[Link, list[Link]]:
        """Return the engine that is asked to load a model or to change it, and the others that are there.

        All fronts ask the same one, so that each model that is loaded on demand takes the memory of one: of that which
        has it, or else of that which its name chooses.
        """
        able = [engine for engine in self._engines if engine.link.connection] or self._engines[:1]

        def rank(engine: ToldModels) -> tuple[int, int]:
            entry = engine.entries.get(name)
            return _STATES.index(entry.state) if entry else len(_STATES), crc32(f"{engine.number} {name}".encode())

        first = min(able, key=rank).link
        return first, [engine.link for engine in able if engine.link is not first]

    def _merge(self) -> None:
        """Put together what the engines have told. On the thread of one that has told something new."""
        with self._merging:
            there = [engine for engine in self._engines if engine.link.connection and engine.known]
            there = there or [engine for engine in self._engines if engine.known]
            names = dict.fromkeys(name for engine in there for name in engine.entries)
            self.problem = next((engine.problem for engine in there), "")
            self.entries = {
                name: _merged([found for engine in there if (found := engine.entries.get(name))]) for name in names
            }
            self.known = bool(there)
            if not self.known:
                return
            self._first.set()
            loading = any(entry.state is State.LOADING for entry in self.entries.values())
            then = None if loading else self._then
            if then is not None:
                self._then = None
        if then is not None:
            then()


def _merged(entries: list[ModelEntry]) -> ModelEntry:
    """Return the entry of a model by those of the engines: of the newest version that answers, where one does."""
    if len(entries) == 1:
        return entries[0]
    best = min(entries, key=lambda entry: (_STATES.index(entry.state), -_version(entry)))
    merged = copy(best)
    merged.refused = next((text for entry in (best, *entries) if (text := entry.refused or entry.reason)), "")
    merged.model = None
    if best.model is not None:
        models = [
            model for entry in entries if isinstance(model := entry.model, FrontModel) and model.card == best.model.card
        ]
        merged.model = models[0] if len(models) == 1 else BalancedModel(models)
    return merged


def _version(entry: ModelEntry) -> int:
    return int(entry.model.card.version) if entry.model else 0


def _all_follow(links: list[Link]) -> None:
    """Wait until other engines have told all fronts what they know: they made the change as the first one did."""
    for call in [link.call("follow") for link in links]:
        with suppress(RequestError):  # it has ended, and begins with what is known then
            call.result()


class FrontLoads:
    """Models are loaded on demand by the engines; see `OnDemand`."""

    def __init__(self, registry: FrontRegistry) -> None:
        self._registry = registry

    def start(self) -> None:
        """The engines have begun."""

    def stop(self) -> None:
        """The engines end by themselves."""

    async def wait(self, entry: ModelEntry, deadline: float, held: Collection[str] = ()) -> None:
        """Wait until a model is loaded."""
        first, _ = self._registry.order(entry.name)
        await self._ask(first, "wait", entry.name, deadline, held)

    async def load(self, name: str, deadline: float) -> None:
        """Load a model for an administrator."""
        first, others = self._registry.order(name)
        await self._ask(first, "load", name, deadline)
        await asyncio.to_thread(_all_follow, others)

    async def _ask(self, link: Link, what: str, name: str, deadline: float, held: Collection[str] = ()) -> None:
        asked = asyncio.wrap_future(link.call(what, name, deadline, list(held)))
        try:
            async with asyncio.timeout(max(0.0, deadline - perf_counter()) + 1.0):
                await asked
        except TimeoutError:  # the engine says it in time, unless it hangs
            raise RequestError(Reason.NOT_READY, f"`{name}` is not loaded in time.", retry_after=1) from None
