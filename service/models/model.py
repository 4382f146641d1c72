"""A loaded folder of the store: its card, its session, its measured profile and its queue. The repository creates it.

Models for images and for tensors have the same class. `_kind_of` returns the differences, which follow from the card.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Generic, NamedTuple, TypeGuard, TypeVar

import numpy as np

from service.engine.assembly import Assembly, Concatenation, ImageBuffer, ImageRows
from service.engine.batcher import Batcher
from service.engine.profile import (
    CPU_SIZES,
    GPU_SIZES,
    Profile,
    Sample,
    best_batch,
    best_runs,
    best_tuning,
    measure,
)
from service.engine.profile_cache import key_of, recall, remember
from service.engine.providers import Device, Tuning, pin
from service.engine.session import Session
from service.engine.stop import Stop
from service.engine.workers import Workers
from service.models.golden_tensors import read_golden, repeated
from service.settings import Settings
from service.telemetry.metrics import Metrics
from zoo.served_card import AnyServed, ServedCard, ServedTensors
from zoo.store import read_folder

CardT_co = TypeVar("CardT_co", bound=AnyServed, covariant=True)
_CAPTURE = 3  # runs after which a CUDA graph has been captured


class Model(Generic[CardT_co]):
    """A graph that is ready to run.

    Attributes:
        folder: from which it was loaded.
        card: of that folder.
        golden: the files for its self-test, by name; cleared after the test.
        session: runs the graph.
        profile: the measured times, and the parameters chosen by them.
        batcher: its queue.
    """

    def __init__(
        self,
        folder: Path,
        card: CardT_co,
        files: Mapping[str, bytes],
        stop: Stop,
        settings: Settings,
        workers: Workers,
        metrics: Metrics,
        device_id: int = 0,
        on_broken: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Load, measure and warm up a graph.

        Args:
            folder: of the store.
            card: of the folder.
            files: verified files of the folder, by name. No file is read again.
            stop: ends the loading on request.
            settings: give the device and, unless it is to be measured, the batch size.
            workers: the threads that all models share.
            metrics: get the size of every batch, and count shapes that were not warmed up.
            device_id: of the GPU.
            on_broken: called with the reason when the device can no longer be used.

        Raises:
            SessionError: ONNX Runtime cannot run the graph as configured, or the golden tensors are invalid.
        """
        self.folder = folder
        self.card = card
        self.golden = {path.removeprefix("golden/"): data for path, data in files.items() if path.startswith("golden/")}
        kind = _kind_of(card, self.golden)
        load = partial(_load, files["model.onnx"], settings.device, device_id, stop)
        self.session = load(kind.first_tuning)
        self.profile = self._recall(kind, workers.size, settings.max_batch, load)
        if self.profile.tuning != self.session.tuning:
            self.session = load(self.profile.tuning)
        unwarmed = metrics.unwarmed_shape.labels(card.name).inc
        self.batcher = Batcher(
            self.session.run,
            workers,
            self._assembly(kind, workers.size, self._warm_up(kind, unwarmed)),
            max_batch=self.profile.max_batch,
            max_runs=self.profile.max_runs,
            max_queue=settings.max_queue,
            cost=self.profile.seconds[1],
            observe_batch=metrics.batch_size.labels(card.name).observe,
            on_broken=on_broken,
        )

    def _recall(self, kind: "_Kind", workers: int, max_batch: int, load: Callable[[Tuning], Session]) -> Profile:
        """Return the profile of an earlier start, or measure one now."""
        key = key_of(self.card.sha256, self.session.provider, workers, max_batch)
        profile = recall(key)
        if profile is None:
            profile = self._measure(kind, workers, max_batch, load)
            remember(key, profile)
        return profile

    def _measure(self, kind: "_Kind", workers: int, fixed: int, load: Callable[[Tuning], Session]) -> Profile:
        session = self.session
        tuning = session.tuning
        if session.on_gpu and kind.tunings:
            tuning = best_tuning(load, kind.sample, kind.tunings)
        sizes = sorted({1, fixed}) if fixed else GPU_SIZES if session.on_gpu else CPU_SIZES
        seconds = measure(session, kind.sample, sizes)
        max_batch = fixed or best_batch(seconds)
        if not session.on_gpu:
            # Every worker computes on its own core, so one run per worker is best. With a configured batch size, one
            # worker prepares images while the others compute; otherwise no batch would ever be full.
            max_runs = max(1, workers - 1) if fixed > 1 and kind.image_shape else workers
        elif len(kind.gpu_runs) > 1:
            max_runs = best_runs(session, kind.sample(max_batch), kind.gpu_runs)
        else:
            (max_runs,) = kind.gpu_runs
        return Profile(seconds, max_batch, max_runs, tuning, "setting" if fixed else "measured")

    def _warm_up(self, kind: "_Kind", unwarmed: Callable[[], None]) -> tuple[int, ...]:
        """Run every batch size that will be used. Return the sizes to which batches are padded, if they are."""
        largest = self.profile.max_batch
        sizes, repeats = {1, largest}, 1
        binds = self.session.on_gpu and kind.image_shape is not None  # tensors' shapes differ between requests
        if binds:
            sizes |= {size for size in GPU_SIZES if size < largest}
            repeats = _CAPTURE * self.profile.max_runs
            self.session.bind(sorted(sizes), self.profile.max_runs, unwarmed)
        for size in sorted(sizes):
            inputs = kind.sample(size)
            for _ in range(repeats):
                self.session.run(inputs)
        return tuple(sorted(sizes)) if binds else ()

    def _assembly(self, kind: "_Kind", workers: int, sizes: tuple[int, ...]) -> Assembly:
        if kind.image_shape is None:
            return Concatenation()
        # One row for each worker's image, and one for each image of all runs and of the next batch.
        rows = workers + self.profile.max_batch * (self.profile.max_runs + 1)
        pins = [pin] if self.session.on_gpu else []
        return ImageRows(ImageBuffer(rows, self.profile.max_batch, kind.image_shape, *pins), sizes)


ImageModel = Model[ServedCard]
AnyModel = Model[AnyServed]


def load_folder(
    folder: Path,
    stop: Stop,
    settings: Settings,
    workers: Workers,
    metrics: Metrics,
    device_id: int = 0,
    on_broken: Callable[[str], None] = lambda _: None,
) -> AnyModel:
    """Verify a folder of the store and load it; the arguments are those of `Model`.

    Raises:
        StoreError: the folder was changed after it was exported.
        SessionError: ONNX Runtime cannot run the graph as configured.
    """
    contents = read_folder(folder)
    return Model(folder, contents.card, contents.files, stop, settings, workers, metrics, device_id, on_broken)


def takes_images(model: AnyModel) -> TypeGuard[ImageModel]:
    """Return whether a model has a task for images; otherwise it takes tensors."""
    return isinstance(model.card, ServedCard)


class _Kind(NamedTuple):
    """The differences between models for images and for tensors.

    Attributes:
        sample: makes inputs for measuring and warming up.
        image_shape: [H, W, 3] of an image; None: the model takes tensors, whose shapes may differ between requests.
        first_tuning: of the session that is loaded first.
        tunings: the tunings to try on a GPU; empty: the first stays.
        gpu_runs: the numbers of concurrent runs to try on a GPU.
    """

    sample: Sample
    image_shape: tuple[int, int, int] | None
    first_tuning: Tuning
    tunings: tuple[Tuning, ...]
    gpu_runs: tuple[int, ...]


def _kind_of(card: AnyServed, golden: Mapping[str, bytes]) -> _Kind:
    if isinstance(card, ServedTensors):
        inputs, _ = read_golden(card, golden[card.golden.file])
        # cuDNN's exhaustive search would be repeated for every shape. While one run computes, another one's data is
        # copied.
        return _Kind(partial(repeated, inputs), None, Tuning("HEURISTIC"), (), (2,))
    shape = (card.recipe.height, card.recipe.width, 3)
    return _Kind(
        lambda size: {"images": np.zeros((size, *shape), np.uint8)},
        shape,
        Tuning(),
        (Tuning("HEURISTIC"), Tuning("EXHAUSTIVE"), Tuning("EXHAUSTIVE", cuda_graphs=True)),
        (1, 2, 3),
    )


def _load(graph: bytes, device: Device, device_id: int, stop: Stop, tuning: Tuning) -> Session:
    return Session(graph, device, device_id, tuning, stop)
