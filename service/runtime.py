"""Everything that one server process holds, put together once: settings, metrics, workers, models, predictor."""

import functools
import gc

from service.engine.repository import LoadedModel, Repository
from service.engine.workers import Workers
from service.metrics import Metrics
from service.predictor import Predictor
from service.selftest import self_test
from service.settings import Settings, read_settings, usable_cores


class Runtime:
    """The parts of a server process. Nothing is loaded before `start`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.workers = Workers(settings.threads or usable_cores())
        self.repository = Repository(settings, self.workers, self.metrics, self._check)
        self.predictor = Predictor(self.repository, settings)

    def start(self) -> None:
        """Load the models in the background."""
        self.repository.load_in_background(then=_calm_gc)

    def stop(self) -> None:
        """Let the worker threads end."""
        self.workers.close()

    def _check(self, model: LoadedModel) -> None:
        self_test(model, self.predictor)


@functools.cache
def runtime() -> Runtime:
    """Return the runtime of this process, made from the environment at the first call."""
    return Runtime(read_settings())


def _calm_gc() -> None:
    """Keep what was loaded out of the garbage collector's way: a full collection over it once took 601 ms."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
