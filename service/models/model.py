"""A folder of the store, loaded: its card, its session, its measured profile and its queue. The repository calls it.

Models of images and models of tensors are one class. What differs is in `_kind_of`, and follows from the card.
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
from service.engine.session import NARROW, Session, Width
from service.engine.stop import Stop
from service.engine.widths import WideRun, measure_widths, thread_counts, used_widths
from service.engine.workers import Workers
from service.models.golden_tensors import read_golden, repeated
from service.settings import Settings
from service.telemetry.metrics import Metrics
from zoo.served_card import AnyServed, ServedCard, ServedTensors
from zoo.store import read_folder

CardT_co = TypeVar("CardT_co", bound=AnyServed, covariant=True)
_Load = Callable[..., Session]
_CAPTURE = 3  # runs after which a CUDA graph has been captured


class Model(Generic[CardT_co]):
    """A graph that is ready to run.

    Attributes:
        folder: that it was loaded from.
        card: of that folder.
        golden: the files for its self-test, by name; the repository clears them after it.
        session: runs the graph; on a CPU on one thread.
        wide: run it on several threads of a CPU, with rising numbers of them.
        profile: what was measured, and chosen.
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
            files: of the folder, by name, verified. No file is read again.
            stop: ends the loading when it is asked to.
            settings: give the device and, where it is not to be measured, the batch size.
            workers: the threads that all models share.
            metrics: told the size of every batch, and shapes that were never warmed up.
            device_id: of the GPU.
            on_broken: called with the reason when the device can no longer be used.

        Raises:
            SessionError: ONNX Runtime cannot run the graph as asked, or the golden tensors are not usable.
        """
        self.folder = folder
        self.card = card
        self.golden = {path.removeprefix("golden/"): data for path, data in files.items() if path.startswith("golden/")}
        kind = _kind_of(card, self.golden)
        graph = files["model.onnx"]
        load = partial(_load, graph, settings.device, device_id, stop)
        self.session = load(kind.first_tuning)
        self.profile = self._recall(kind, workers.size, len(graph), settings, load)
        if self.profile.tuning != self.session.tuning:
            self.session = load(self.profile.tuning)
        self.wide = [load(self.session.tuning, width) for width in used_widths(self.profile.wide)]
        unwarmed = metrics.unwarmed_shape.labels(card.name).inc
        self.batcher = Batcher(
            self.session.run,
            workers,
            self._assembly(kind, workers.size, self._warm_up(kind, unwarmed)),
            max_batch=self.profile.max_batch,
            max_runs=self.profile.max_runs,
            max_queue=settings.max_queue,
            cost=self.profile.seconds[1],
            wide={session.width.threads: session.run for session in self.wide},
            on_gpu=self.session.on_gpu,
            observe_batch=metrics.batch_size.labels(card.name).observe,
            on_broken=on_broken,
        )

    def _recall(self, kind: "_Kind", workers: int, graph_bytes: int, settings: Settings, load: "_Load") -> Profile:
        """Return what was measured at an earlier start, or measure now."""
        key = key_of(
            self.card.sha256,
            self.session.provider,
            workers,
            settings.max_batch,
            settings.run_threads,
            settings.wide_mb,
        )
        profile = recall(key)
        if profile is None:
            profile = self._measure(kind, workers, graph_bytes, settings, load)
            remember(key, profile)
        return profile

    def _measure(self, kind: "_Kind", workers: int, graph_bytes: int, settings: Settings, load: "_Load") -> Profile:
        session, fixed = self.session, settings.max_batch
        tuning = session.tuning
        if session.on_gpu and kind.tunings:
            tuning = best_tuning(load, kind.sample, kind.tunings)
        sizes = sorted({1, fixed}) if fixed else GPU_SIZES if session.on_gpu else CPU_SIZES
        seconds = measure(session, kind.sample, sizes)
        max_batch = fixed or best_batch(seconds)
        if not session.on_gpu:
            # Every worker computes on its own core, so as many runs as workers are best. With a batch size that was
            # set, one worker is left to prepare images while the others compute, or no batch would ever be full.
            max_runs = max(1, workers - 1) if fixed > 1 and kind.image_shape else workers
        elif len(kind.gpu_runs) > 1:
            max_runs = best_runs(session, kind.sample(max_batch), kind.gpu_runs)
        else:
            (max_runs,) = kind.gpu_runs
        wide: list[WideRun] = []
        if not session.on_gpu:
            asked = settings.run_threads
            counts = [asked] if asked > 1 else thread_counts(workers) if asked == 0 else []
            load_width = partial(load, tuning)
            wide = measure_widths(
                session, load_width, kind.sample(1), counts, graph_bytes, settings.wide_mb * 1e6, chosen=asked > 1
            )
        return Profile(seconds, max_batch, max_runs, tuning, "setting" if fixed else "measured", wide)

    def _warm_up(self, kind: "_Kind", unwarmed: Callable[[], None]) -> tuple[int, ...]:
        """Run every batch size that will be used. Return them where batches are to be padded to them."""
        largest = self.profile.max_batch
        sizes, repeats = {1, largest}, 1
        binds = self.session.on_gpu and kind.image_shape is not None  # shapes of tensors differ by request
        if binds:
            sizes |= {size for size in GPU_SIZES if size < largest}
            repeats = _CAPTURE * self.profile.max_runs
            self.session.bind(sorted(sizes), self.profile.max_runs, unwarmed)
        for size in sorted(sizes):
            inputs = kind.sample(size)
            for _ in range(repeats):
                self.session.run(inputs)
            for wide in self.wide:
                wide.run(inputs)
        return tuple(sorted(sizes)) if binds else ()

    def _assembly(self, kind: "_Kind", workers: int, sizes: tuple[int, ...]) -> Assembly:
        if kind.image_shape is None:
            return Concatenation()
        # A row for the image of each worker, and for the images of all runs and of the batch that waits for one.
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
        StoreError: the folder is not as it was published.
        SessionError: ONNX Runtime cannot run the graph as asked.
    """
    contents = read_folder(folder)
    return Model(folder, contents.card, contents.files, stop, settings, workers, metrics, device_id, on_broken)


def takes_images(model: AnyModel) -> TypeGuard[ImageModel]:
    """Whether a model has a task of images; otherwise it takes tensors."""
    return isinstance(model.card, ServedCard)


class _Kind(NamedTuple):
    """How models of images and models of tensors differ.

    Attributes:
        sample: makes inputs to measure and to warm up with.
        image_shape: [H, W, 3] of an image; None: the model takes tensors, whose shapes may differ by request.
        first_tuning: of the session that is loaded first.
        tunings: the options to try on a GPU; none: the first stays.
        gpu_runs: the numbers of runs at once to try on a GPU.
    """

    sample: Sample
    image_shape: tuple[int, int, int] | None
    first_tuning: Tuning
    tunings: tuple[Tuning, ...]
    gpu_runs: tuple[int, ...]


def _kind_of(card: AnyServed, golden: Mapping[str, bytes]) -> _Kind:
    if isinstance(card, ServedTensors):
        inputs, _ = read_golden(card, golden[card.golden.file])
        # cuDNN's exhaustive search would begin anew with every shape. While one run computes another is copied.
        return _Kind(partial(repeated, inputs), None, Tuning("HEURISTIC"), (), (2,))
    shape = (card.recipe.height, card.recipe.width, 3)
    return _Kind(
        lambda size: {"images": np.zeros((size, *shape), np.uint8)},
        shape,
        Tuning(),
        (Tuning("HEURISTIC"), Tuning("EXHAUSTIVE"), Tuning("EXHAUSTIVE", cuda_graphs=True)),
        (1, 2, 3),
    )


def _load(graph: bytes, device: Device, device_id: int, stop: Stop, tuning: Tuning, width: Width = NARROW) -> Session:
    return Session(graph, device, device_id, tuning, stop, width)
