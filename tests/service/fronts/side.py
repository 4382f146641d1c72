"""An engine and fronts in one process: each as it is, but with threads in the place of processes."""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from service.engine.calls import Calls
from service.engine.job import Job, Priority
from service.engine.workers import Workers
from service.fronts.channel import listen
from service.fronts.engine import Engine
from service.fronts.memory import EngineMemory
from service.fronts.registry import FrontLoads, FrontRegistry
from service.limits import PixelMemory
from service.models.entry import State
from service.predictor import Predictor, deadline_after
from service.runtime import Models
from service.settings import Settings
from service.telemetry.metrics import Metrics

SECONDS = 60


class EngineThread:
    """An engine on a thread of its own, with the listening socket that outlives it."""

    def __init__(self, settings: Settings, threads: int = 1) -> None:
        self.settings, self.threads = settings, threads
        self.listener, self.address = listen()
        self.start()

    def start(self) -> None:
        """Begin as a new process does."""
        self.workers = Workers(1, self.settings.work_s)
        self.engine = Engine(self.settings.fronts, self.threads, EngineMemory())
        self.models = Models(self.settings, self.workers, Metrics(), assemble=self.engine.assemble)
        self._stop = asyncio.Event()
        started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live(started)), daemon=True)
        self._thread.start()
        started.wait()

    async def _live(self, started: threading.Event) -> None:
        self.loop = asyncio.get_running_loop()
        models = self.models
        listener = self.listener.dup()
        self.engine.start(listener, models.repository, models.on_demand, self.workers, Metrics())
        models.repository.load_in_background(then=lambda: None)
        models.on_demand.start()
        started.set()
        await self._stop.wait()
        for front in [*self.engine._seated, *self.engine._waiting]:
            front.channel.end()
        models.on_demand.stop()
        self.loop.remove_reader(listener)
        listener.close()

    def call(self, function, *arguments):
        """Call a function on the engine's event loop, and return what it returns."""

        async def run():
            return function(*arguments)

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(SECONDS)

    def end(self) -> None:
        """End it as if it was killed: connections break at once."""
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(SECONDS)
        self.models.repository.close()
        self.workers.close()

    def close(self) -> None:
        """End it for good."""
        self.end()
        self.listener.close()
        os.close(self.address)


class FrontSide:
    """The parts of a front process."""

    def __init__(self, settings: Settings, *addresses: int, threads: int = 1) -> None:
        self.settings = settings
        self.workers = Workers(threads)
        self.registry = FrontRegistry(settings, addresses, self.workers)
        self.loads = FrontLoads(self.registry)
        self.predictor = Predictor(self.registry, settings, Calls(self.workers, PixelMemory(10**9)))
        self.registry.load()

    def wait(self, *names: str, state: State = State.READY) -> None:
        """Wait until models have a state; without names all."""
        entries = self.registry.entries
        until(lambda: all(entries[name].state is state for name in names or self.registry.entries))

    def close(self) -> None:
        """End as a process does."""
        self.registry.close()
        self.workers.close()


def until(condition, seconds: float = SECONDS) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextlib.contextmanager
def sides(models: Path, fronts: int = 1, **settings) -> Iterator[tuple[EngineThread, list[FrontSide]]]:
    """An engine and its fronts, once all models are loaded or on demand."""
    with several(models, 1, fronts, **settings) as ((engine,), connected):
        yield engine, connected


@contextlib.contextmanager
def several(
    models: Path, engines: int, fronts: int = 1, **settings
) -> Iterator[tuple[list[EngineThread], list[FrontSide]]]:
    """Engines and their fronts, once all models are loaded or on demand."""
    given = Settings(models=str(models), fronts=fronts, engines=engines, watch_s=0, **settings)
    behind = [EngineThread(given) for _ in range(engines)]
    connected = [FrontSide(given, *[engine.address for engine in behind]) for _ in range(fronts)]
    try:
        for front in connected:
            until(lambda front=front: front.registry.engines() == engines)
            until(lambda front=front: all(e.state is not State.LOADING for e in front.registry.entries.values()))
        yield behind, connected
    finally:
        for front in connected:
            front.close()
        for engine in behind:
            engine.close()


def submit(front, data: bytes, milliseconds=20_000, priority=Priority.NORMAL, name="lenet5", **options) -> Job:
    """Submit an image; on an event loop."""
    model = front.registry.find(name)
    made = front.predictor.input(data, model, front.predictor.options(model, options))
    return front.predictor.submit(made, model, deadline_after(milliseconds), priority)


async def outcomes(jobs) -> list:
    return await asyncio.gather(*[job.future for job in jobs], return_exceptions=True)


def slow(engine, monkeypatch, seconds: float) -> list[int]:
    """Let each run of lenet5 take some time; return the sizes of its batches, as they come."""
    batcher, sizes = engine.models.repository.find("lenet5").batcher, []
    run = batcher._runs_on[1]

    def waits(inputs):
        sizes.append(len(inputs["images"]))
        time.sleep(seconds)
        return run(inputs)

    monkeypatch.setattr(batcher, "_runs_on", dict.fromkeys(batcher._runs_on, waits))
    return sizes


async def outcomes_of(fronts, digit) -> list[str]:
    return [each.predictions[0].label for each in await outcomes([submit(fronts[i % 2], digit) for i in range(20)])]
