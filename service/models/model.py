"""One folder, loaded: its card, its session, its measured profile and its queue."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from service.engine.batcher import Batcher
from service.engine.profile import CPU_SIZES, GPU_RUNS, GPU_SIZES, Profile, best_batch, best_runs, best_tuning, measure
from service.engine.profile_cache import key_of, recall, remember
from service.engine.providers import Tuning, pin
from service.engine.session import Session
from service.engine.image_buffer import ImageBuffer
from service.engine.stop import Stop
from service.engine.workers import Workers
from service.metrics import Metrics
from service.settings import Settings
from zoo.card import ServedCard, of_pictures
from zoo.store import Contents

_TUNINGS = (Tuning("HEURISTIC"), Tuning("EXHAUSTIVE"), Tuning("EXHAUSTIVE", cuda_graphs=True))
_CAPTURE = 3  # runs after which a CUDA graph has been captured


class Model:
    """A graph that is ready to run, with its card and its queue.

    Attributes:
        golden: its photos for the self-test, by their names; the repository lets go of them after it.
    """

    def __init__(
        self,
        folder: Path,
        contents: Contents,
        stop: Stop,
        settings: Settings,
        workers: Workers,
        metrics: Metrics,
        device_id: int = 0,
        on_broken: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Load, measure and warm up a folder's graph.

        Args:
            folder: of the store.
            contents: of the folder, verified. No file is read again.
            stop: ends the loading when it is asked to.
            settings: give the device and, where it is not to be measured, the batch size.
            workers: the threads that all models share.
            metrics: told the size of every batch, and shapes that were never warmed up.
            device_id: of the GPU.
            on_broken: told when the device can no longer be used.

        Raises:
            SessionError: ONNX Runtime cannot run the graph as asked.
        """
        self.folder = folder
        self.card: ServedCard = of_pictures(contents.card)
        self.golden = {name: contents.files[f"golden/{name}"] for name in (golden.photo for golden in self.card.golden)}
        self._settings, self._workers = settings, workers
        load = partial(self._load, contents.files["model.onnx"], stop, device_id)
        self.session = load(Tuning())
        self.profile = self._profile(load)
        buckets = self._warm_up(metrics)
        shape = (self.session.height, self.session.width, 3)
        places = workers.size + self.profile.max_batch * (self.profile.max_runs + 1)
        slots = ImageBuffer(places, self.profile.max_batch, shape, *([pin] if self.session.on_gpu else []))
        self.batcher = Batcher(
            self.session.run,
            workers,
            slots,
            max_batch=self.profile.max_batch,
            max_runs=self.profile.max_runs,
            max_queue=settings.max_queue,
            cost=self.profile.seconds[1],
            buckets=buckets,
            observe_batch=metrics.batch_size.labels(self.card.name).observe,
            on_broken=on_broken,
        )

    def _load(self, graph: bytes, stop: Stop, device_id: int, tuning: Tuning) -> Session:
        return Session(graph, self._settings.device, device_id, tuning, stop)

    def _profile(self, load: Callable[[Tuning], Session]) -> Profile:
        """Recall what was measured at an earlier start, or measure now."""
        fixed = self._settings.max_batch
        key = key_of(self.card.sha256, self.session.provider, self._workers.size, fixed)
        profile = recall(key)
        if profile is None:
            profile = self._measure(load, fixed)
            remember(key, profile)
        if profile.tuning != self.session.tuning:
            self.session = load(profile.tuning)
        return profile

    def _measure(self, load: Callable[[Tuning], Session], fixed: int) -> Profile:
        on_gpu = self.session.on_gpu
        tuning = best_tuning(load, _TUNINGS) if on_gpu else Tuning()
        sizes = sorted({1, fixed}) if fixed else GPU_SIZES if on_gpu else CPU_SIZES
        seconds = measure(self.session, sizes)
        max_batch = fixed or best_batch(seconds)
        # On a CPU every worker computes where it is: as many runs as there are workers, and no measuring changes that.
        # Whoever sets a batch size wants batches: one worker is left to prepare pictures while the others compute.
        on_cpu = max(1, self._workers.size - 1) if fixed > 1 else self._workers.size
        max_runs = best_runs(self.session, max_batch, GPU_RUNS) if on_gpu else on_cpu
        return Profile(seconds, max_batch, max_runs, tuning, "setting" if fixed else "measured")

    def _warm_up(self, metrics: Metrics) -> tuple[int, ...]:
        """Run every batch size that will be used. Return them where batches are to be padded to them."""
        sizes: tuple[int, ...] = tuple(sorted({1, self.profile.max_batch}))
        runs = 1
        if self.session.on_gpu:
            sizes = tuple(sorted({*(size for size in GPU_SIZES if size < self.profile.max_batch), *sizes}))
            runs = _CAPTURE * self.profile.max_runs
            self.session.bind(sizes, self.profile.max_runs, metrics.unwarmed_shape.labels(self.card.name).inc)
        for size in sizes:
            for _ in range(runs):
                self.session.run(np.zeros((size, self.session.height, self.session.width, 3), np.uint8))
        return sizes if self.session.on_gpu else ()
