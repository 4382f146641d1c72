"""Loads models when they are asked for, and unloads others, within the budget for their memory.

One model is loaded at a time, on a thread of its own: requests for loaded models do not notice. All requests for a
model that is not loaded wait for one load, each until its own deadline. Everything here runs on the event loop, which
also counts the requests that use a model: none loses it.
"""

import asyncio
import gc
import logging
import weakref
from collections.abc import Collection
from concurrent.futures import CancelledError
from math import ceil
from time import perf_counter, sleep
from typing import cast

from service.engine.memory import give_back, resident
from service.errors import Reason, RequestError
from service.models.budget import Budget, taken
from service.models.entry import ModelEntry, State
from service.models.footprint import Footprint
from service.models.model import LoadedModel
from service.models.repository import Repository
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.threads import LOADING, ON_DEMAND, Tasks

logger = logging.getLogger(__name__)
_LOOK_S = 0.02  # between two looks for a model that can be unloaded
_GONE_S = 10.0  # after which the memory of an unloaded model is no longer waited for
_COLLECT_S = 1.0  # between two looks for references that only the garbage collector finds
_OTHERS = 150_000_000  # bytes that libraries and requests take beside the models
_UNKNOWN_S = 2.0  # `Retry-After` for a model that was never loaded here


class _LaterError(Exception):
    """There is no room for a model now, and there may be for another one that is asked for."""


class _Demand:
    """Requests that wait for one model: how many, and whether for room, as all models that would make it are in use."""

    def __init__(self) -> None:
        self.waiting, self.for_room = 0, False
        self.over: asyncio.Future[RequestError | None] = asyncio.get_running_loop().create_future()


class OnDemand:
    """Loads and unloads the models of a repository.

    Args:
        settings: of the server.
        repository: of the models.
        metrics: get what happens.
    """

    def __init__(self, settings: Settings, repository: Repository, metrics: Metrics) -> None:
        self._repository, self._metrics = repository, metrics
        self._budget: Budget = repository.budget
        self._longest_idle = settings.model_idle_s
        self._demands: dict[str, _Demand] = {}  # by name, in the order in which they are loaded
        self._tasks = Tasks()
        self._beside = resident() + _OTHERS
        self._loop: asyncio.AbstractEventLoop

    def start(self) -> None:
        """Begin to make room for new versions, and to unload what was idle for long. On the event loop."""
        self._loop = asyncio.get_running_loop()
        self._repository.room.make = self._make
        if self._longest_idle:
            self._tasks.begin(self._tidy())

    def stop(self) -> None:
        """End all that is under way."""
        for task in self._tasks:
            task.cancel()

    async def wait(self, entry: ModelEntry, deadline: float, held: Collection[str] = ()) -> None:
        """Wait until a model is loaded.

        Args:
            entry: of the model.
            deadline: of the request, a time of `perf_counter()`.
            held: names of models that the request has already, and needs as well.

        Raises:
            RequestError: `not_ready`: it cannot be loaded, or not in time.
        """
        if reason := self._budget.refusal(entry.footprint, self._others(entry), held):
            raise _too_large(entry, reason)
        demand = self._demands.get(entry.name)
        if demand is None:
            demand = self._demands[entry.name] = _Demand()
            if len(self._demands) == 1:
                self._tasks.begin(self._load_all())
        left = deadline - perf_counter()
        if entry.footprint.seconds >= left:
            raise _late(entry)
        demand.waiting += 1
        self._metrics.waiting.labels(entry.name).inc()
        try:
            async with asyncio.timeout(left):
                refused = await asyncio.shield(demand.over)
        except TimeoutError:
            raise (_busy if demand.for_room else _late)(entry) from None
        finally:
            demand.waiting -= 1
            self._metrics.waiting.labels(entry.name).dec()
        if refused is not None:
            raise RequestError(refused.reason, refused.detail, retry_after=refused.retry_after)

    async def load(self, name: str, deadline: float) -> None:
        """Load a model for an administrator, in the version that the store holds now.

        Raises:
            RequestError: `unknown_model`, `refused` or `not_ready`.
        """
        await LOADING.run(self._repository.reload, name)
        entry = self._repository.entries.get(name)
        if entry is not None and entry.state is State.ON_DEMAND:
            try:
                await self.wait(entry, deadline)
            except RequestError:
                if entry.reason:
                    raise RequestError(Reason.REFUSED, f"`{name}`: {entry.reason}") from None
                raise
            if entry.refused:
                raise RequestError(Reason.REFUSED, f"`{name}`: {entry.refused}")

    async def _load_all(self) -> None:
        """Load what is asked for, one after the other. While there is no room for one, it is the others' turn."""
        while self._demands:
            name, demand = next(iter(self._demands.items()))
            refused: RequestError | None
            try:
                refused = await self._load(name, demand)
            except _LaterError:
                self._demands[name] = self._demands.pop(name)
                await asyncio.sleep(_LOOK_S)
                continue
            except Exception:  # a bug: those who wait are told
                logger.exception("%s could not be loaded", name)
                refused = RequestError(Reason.INTERNAL, f"`{name}` could not be loaded; the server's log says why.")
            del self._demands[name]
            demand.over.set_result(refused)

    async def _load(self, name: str, demand: _Demand) -> RequestError | None:
        """Make room for a model and load it. Return why it is not loaded, or None."""
        entry = self._repository.entries.get(name)
        if entry is None or entry.model is not None:
            return None
        await ON_DEMAND.run(self._repository.room.weigh, entry)
        if reason := self._budget.refusal(entry.footprint, self._others(entry)):
            return _too_large(entry, reason)
        if not await self._reserve(entry, entry.footprint, demand):
            return _busy(entry)
        await ON_DEMAND.run(self._repository.load_on_demand, entry)
        await ON_DEMAND.run(give_back)  # what only the load needed
        entry.reserved = Footprint()  # also if it was not loaded, as an administrator unloaded it
        if entry.model is None:
            return RequestError(Reason.NOT_READY, f"`{name}` is not served: {entry.reason}")
        return None

    async def _reserve(self, entry: ModelEntry, need: Footprint, demand: _Demand | None = None) -> bool:
        """Unload models until there is room for one, and reserve it; say whether there is.

        Args:
            entry: of the model. A version of it that is loaded stays.
            need: what the load takes.
            demand: requests that wait for it. If none does, others are not waited for.

        Raises:
            _LaterError: there is none, and others are asked for.
        """
        while True:
            unbooked = await self._unbooked()
            entries = list(self._repository.entries.values())
            if self._budget.fits(need, entries, unbooked):
                break
            victim = self._budget.victim(self._others(entry), perf_counter())
            if victim is not None:
                await self._unload(victim, "memory")
            elif self._budget.fits(need, entries):
                break  # what is unbooked is that of models in use, or of requests
            elif demand is not None and demand.waiting:
                demand.for_room = True
                if len(self._demands) > 1:
                    raise _LaterError
                await asyncio.sleep(_LOOK_S)
            else:
                return False
        if demand is not None:
            demand.for_room = False
        entry.reserved = need
        return True

    async def _unbooked(self) -> int:
        """Return how much more memory this process has than its models are known to take."""
        if not self._budget.host or not self._above():
            return 0
        await asyncio.to_thread(give_back)
        return self._above()

    def _above(self) -> int:
        return max(0, resident() - self._beside - taken(self._repository.entries.values())[0])

    def _make(self, entry: ModelEntry, need: Footprint) -> bool:
        """Reserve memory for a new version. On the thread that loads it, which other loads may wait for."""
        work = self._reserve(entry, need)
        try:
            reserved = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:  # the server stops
            work.close()
            return False
        try:
            return reserved.result(_GONE_S)
        except (TimeoutError, CancelledError):
            reserved.cancel()
            return False

    def _others(self, entry: ModelEntry) -> list[ModelEntry]:
        return [other for other in self._repository.entries.values() if other is not entry]

    async def _unload(self, entry: ModelEntry, why: str) -> None:
        """Unload a model that no request uses, and wait until its memory is free."""
        using = entry.model
        if using is None or not await using.usage.close() or entry.model is not using:
            return
        del using
        model = self._repository.evict(entry, why)
        if model is None:
            return
        logger.info("%s was unloaded (%s)", entry.name, why)
        last = [cast(LoadedModel, model)]
        del model
        await asyncio.to_thread(_free, last)  # the thread for loads may wait for that of a new version, and that for us

    async def _tidy(self) -> None:
        """Unload what was idle for `model_idle_s`."""
        while True:
            await asyncio.sleep(min(1.0, self._longest_idle / 4))
            now = perf_counter()
            for entry in list(self._repository.entries.values()):
                model = entry.model
                if model is not None and self._budget.may_go(entry, now) and model.usage.idle(now) > self._longest_idle:
                    del model
                    await self._unload(entry, "idle")


def _free(last: list[LoadedModel]) -> None:
    """Drop the last reference to a model, and wait until it and its sessions are gone.

    A worker that has just answered its last request lets go of them a moment later. The garbage collector is only asked
    if that does not help: it stops all threads.
    """
    model = last.pop()
    parts = [weakref.ref(each) for each in (model, model.session, *model.wide)]
    del model
    begun = collected = perf_counter()
    while any(part() is not None for part in parts):
        sleep(_LOOK_S)
        now = perf_counter()
        if now - collected > _COLLECT_S:
            gc.collect()
            collected = now
        if now - begun > _GONE_S:
            logger.warning("an unloaded model is still in use; its memory is not free")
            break
    give_back()


def _late(entry: ModelEntry) -> RequestError:
    seconds = entry.footprint.seconds or _UNKNOWN_S
    return RequestError(
        Reason.NOT_READY,
        f"`{entry.name}` is being loaded, which took {seconds:.1f} s the last time: longer than the deadline allows."
        if entry.footprint.seconds
        else f"`{entry.name}` is being loaded for the first time, and the deadline passed.",
        retry_after=max(1, ceil(seconds)),
    )


def _too_large(entry: ModelEntry, reason: str) -> RequestError:
    return RequestError(Reason.NOT_READY, f"`{entry.name}` cannot be loaded: {reason}.")


def _busy(entry: ModelEntry) -> RequestError:
    return RequestError(
        Reason.NOT_READY,
        f"`{entry.name}` is not loaded: all models that would make room for it are in use.",
        retry_after=max(1, ceil(entry.footprint.seconds)),
    )
