"""Creates the parts of one server process: metrics, tracing, worker threads, models, predictor."""

import json
import logging
import os
from pathlib import Path

from service.cores import usable_cores
from service.engine.calls import Calls
from service.engine.memory import keep_freed
from service.engine.providers import gpu_count
from service.engine.stop import Stop
from service.engine.workers import Workers
from service.fronts.registry import FrontLoads, FrontRegistry
from service.limits import PixelMemory
from service.models.footprint import Footprints
from service.models.model import Assemble, LoadedModel
from service.models.on_demand import OnDemand
from service.models.registry import Loads, Registry
from service.models.repository import Repository
from service.models.selftest import self_test
from service.models.unloaded import Unloaded
from service.pipelines import Pipelines
from service.predictor import Predictor
from service.settings import Settings, remarks
from service.supervisor import ENGINES, SHARED, end_with_supervisor, shared_counts
from service.telemetry.garbage import Pauses
from service.telemetry.logs import set_up_logs
from service.telemetry.metrics import Metrics
from service.telemetry.tracing import start_tracing

logger = logging.getLogger(__name__)


class Models:
    """The models that a process has loaded: its repository, and what it takes to load them.

    Args:
        settings: of the server.
        workers: the threads that run them.
        metrics: of the process.
        device_id: of its GPU.
        assemble: see `LoadedModel`.

    Attributes:
        repository: of the models.
        on_demand: loads those that are asked for.
        unloaded: shared by all server processes.
    """

    def __init__(
        self,
        settings: Settings,
        workers: Workers,
        metrics: Metrics,
        device_id: int = 0,
        assemble: Assemble | None = None,
    ) -> None:
        self._settings, self._workers, self._metrics = settings, workers, metrics
        self._device_id, self._assemble = device_id, assemble
        self.unloaded = shared_unloaded()
        footprints = Footprints(settings, workers.size, device_id)
        self.repository = Repository(settings, metrics, self._load, self._check, self.unloaded, footprints)
        self.on_demand = OnDemand(settings, self.repository, metrics)

    def _load(self, folder: Path, stop: Stop) -> LoadedModel:
        broken = self.repository.mark_broken
        with self._workers.leaving_a_core():
            return LoadedModel(
                folder, stop, self._settings, self._workers, self._metrics, self._device_id, broken, self._assemble
            )

    def _check(self, model: LoadedModel) -> None:
        with self._workers.leaving_a_core():
            self_test(model.card, model.golden, model.session.run, self._settings)


class Runtime:
    """The parts of a server process, of all of them or of a front. Nothing is loaded before `start`.

    Args:
        settings: of the server.
        process: the number of this server process, from 0; processes share the GPUs evenly.

    Attributes:
        unloaded: shared by all server processes.
        replaces: whether this process replaces one that died.
    """

    def __init__(self, settings: Settings, process: int = 0) -> None:
        self.settings = settings
        set_up_logs(settings.log, process=process)
        if process == 0:
            for line in [*remarks(), *_oversubscribed(settings)]:
                logger.warning("%s", line)
        counts = shared_counts(process)
        self.replaces = shared_unloaded().started
        if counts.replaces if counts else self.replaces:  # first of all: this one may end soon, too
            logger.warning("this process was started in place of one that ended")
        self.metrics = Metrics(counts)
        self.tracing = start_tracing()
        self.pauses = Pauses()
        self.workers = Workers(_threads(settings), settings.work_s)
        self.repository: Registry
        self.on_demand: Loads
        keep_freed()
        if settings.fronts > 0 and ENGINES in os.environ:
            self.unloaded = shared_unloaded()
            self.repository = front = FrontRegistry(settings, json.loads(os.environ[ENGINES]), self.workers)
            self.on_demand = FrontLoads(front)
        else:
            models = Models(settings, self.workers, self.metrics, process % max(1, gpu_count()))
            self.unloaded, self.repository, self.on_demand = models.unloaded, models.repository, models.on_demand
        memory = PixelMemory(int(settings.max_pixels_mb * 1e6))
        calls = Calls(self.workers, memory)
        self.predictor = Predictor(self.repository, settings, calls)
        self.pipelines = Pipelines(self.repository, self.predictor, settings, calls)

    def start(self) -> None:
        """Load the models in the background, and end this process when the process that started it ends."""
        end_with_supervisor(self.settings)
        self.repository.load_in_background(then=self.pauses.freeze)

    def stop(self) -> None:
        """Stop the worker threads and tracing."""
        self.on_demand.stop()
        self.repository.close()
        self.workers.close()
        if self.tracing is not None:
            self.tracing.stop()


def shared_unloaded() -> Unloaded:
    """Return which models were unloaded by hand, as all server processes know it."""
    shared = os.environ.get(SHARED)
    return Unloaded(Path(shared) if shared else None)


def _threads(settings: Settings) -> int:
    """Return the number of this process' worker threads: together, all processes have one per core by default."""
    return settings.threads or max(1, usable_cores() // settings.processes)


def _oversubscribed(settings: Settings) -> list[str]:
    """Return a warning if all processes together have more threads than there are cores."""
    threads, cores = _threads(settings), usable_cores()
    if settings.processes * threads <= cores:
        return []
    line = f"{settings.processes} processes with {threads} threads each have {cores} cores: they preempt each other. "
    return [line + "ZOOSERVE_WORKERS times ZOOSERVE_THREADS should not exceed the cores."]
