"""A loaded folder of the store: its card, its session, its measured profile and its queue. The repository creates it.

Models for images and for tensors have the same class. `_kind_of` returns the differences, which follow from the card.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Generic, NamedTuple, TypeGuard, TypeVar

import numpy as np
from msgspec import structs

from service.engine.assembly import Assembly, Concatenation, ImageBuffer, ImageRows
from service.engine.batcher import Batcher
from service.engine.lanes import Lanes
from service.engine.profile import (
    CPU_SIZES,
    GPU_SIZES,
    Profile,
    Sample,
    add_lanes,
    best_batch,
    best_sizes,
    best_tuning,
    measure,
)
from service.engine.profile_cache import key_of, recall_or
from service.engine.providers import Tuning, pin
from service.engine.session import Session
from service.engine.stop import Stop
from service.engine.widths import measure_widths, thread_counts, used_widths
from service.engine.workers import Workers
from service.models.golden_tensors import read_golden, repeated
from service.settings import Settings
from service.telemetry.metrics import Metrics
from zoo.served_card import AnyServed, ServedCard, ServedTensors
from zoo.store import read_folder

CardT_co = TypeVar("CardT_co", bound=AnyServed, covariant=True)
_Load = Callable[..., Session]
_TUNED = 8  # rows of the batch with which a GPU's options are compared
_MOST_LANES, _TENSOR_LANES = 3, 2


class Model(Generic[CardT_co]):
    """A graph that is ready to run.

    Attributes:
        folder: from which it was loaded.
        card: of that folder.
        golden: the files for its self-test, by name; cleared after the test.
        session: runs the graph: on a CPU on one thread, on a GPU on its lanes.
        wide: run it on several threads of a CPU, with rising numbers of them.
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
        graph = files["model.onnx"]
        load = partial(Session, graph, settings.device, device_id, stop=stop)
        kind = _kind_of(card, self.golden)
        session = load()
        self.session: Session | Lanes = session
        self.wide: list[Session] = []
        lanes: Lanes | None = None
        if session.on_gpu:
            self.session = lanes = self._on_gpu(kind, session.batch_name, load, settings)
            del session  # lanes have their own
        else:
            self._on_cpu(kind, session, len(graph), load, settings, workers.size)
        sizes = lanes.sizes if lanes else ()
        # One row for each worker's image, and one for each image of all runs and of the next batch.
        profile = self.profile
        rows = workers.size + profile.max_batch * (profile.max_runs + 1)
        assembly: Assembly = Concatenation()
        if kind.image_shape is not None:
            assembly = ImageRows(ImageBuffer(rows, profile.max_batch, kind.image_shape, *[pin] * bool(lanes)), sizes)
        self.batcher = Batcher(
            self.session.run,
            workers,
            assembly,
            max_batch=profile.max_batch,
            max_runs=profile.max_runs,
            max_queue=settings.max_queue,
            cost=profile.seconds[1],
            wide={session.width.threads: session.run for session in self.wide},
            lanes=lanes,
            observe_batch=metrics.batch_size.labels(card.name).observe,
            on_broken=on_broken,
        )

    def _on_cpu(
        self,
        kind: "_Kind",
        session: Session,
        graph_bytes: int,
        load: "_Load",
        settings: Settings,
        workers: int,
    ) -> None:
        """Measure, or recall what was measured, and load a session for each number of threads that pays."""
        fixed, asked = settings.max_batch, settings.run_threads

        def measured() -> Profile:
            seconds = measure(session, kind.sample, sorted({1, fixed}) if fixed else CPU_SIZES)
            # Every worker computes on its own core, so one run per worker is best. With a configured batch size, one
            # worker prepares images while the others compute; otherwise no batch would ever be full.
            runs = max(1, workers - 1) if fixed > 1 and kind.image_shape else workers
            counts = [asked] if asked > 1 else thread_counts(workers) if asked == 0 else []
            wide = measure_widths(
                session,
                lambda width: load(width=width),
                kind.sample(1),
                counts,
                graph_bytes,
                settings.wide_mb * 1e6,
                chosen=asked > 1,
            )
            chosen_by = "setting" if fixed else "measured"
            return Profile(seconds, fixed or best_batch(seconds), runs, Tuning(), chosen_by, wide)

        self.profile = recall_or(measured, self._key(workers, fixed, asked, settings.wide_mb))
        self.wide = [load(width=width) for width in used_widths(self.profile.wide)]
        for size in {1, self.profile.max_batch}:
            for each in (session, *self.wide):
                each.run(kind.sample(size))
        session.shrink(kind.sample(1))  # a larger batch may have taken a gigabyte that is not needed

    def _on_gpu(self, kind: "_Kind", batch_name: str, load: "_Load", settings: Settings) -> Lanes:
        """Measure on the lanes that will serve, or recall what was measured, and start the lanes."""
        fixed = settings.max_batch

        def lanes_of(tuning: Tuning, sizes: Sequence[int]) -> Lanes:
            return Lanes(
                lambda size: load(tuning=tuning, batch=(batch_name, size) if size and batch_name else None), sizes
            )

        lanes: Lanes | None = None

        def measured() -> Profile:
            nonlocal lanes
            chosen_by = "setting" if fixed else "measured"
            if kind.image_shape is None:  # shapes differ by request, so no session has fixed buffers
                lanes = lanes_of(Tuning("HEURISTIC"), ())
                seconds = measure(lanes, kind.sample, sorted({1, fixed}) if fixed else GPU_SIZES)
                return Profile(seconds, fixed or best_batch(seconds), _TENSOR_LANES, lanes.first.tuning, chosen_by)
            tuning = best_tuning(lambda tuning: lanes_of(tuning, [_TUNED]), kind.sample, _TUNED)
            tried = lanes_of(tuning, [size for size in GPU_SIZES if size < fixed] + [fixed] if fixed else GPU_SIZES)
            seconds = measure(tried, kind.sample, tried.sizes)
            largest = tried.sizes[-1] if fixed else best_batch(seconds)
            tried.close(1)
            lanes = lanes_of(tuning, best_sizes(seconds, largest))
            add_lanes(lanes, kind.sample(lanes.sizes[-1]), _MOST_LANES)
            return Profile(seconds, lanes.sizes[-1], lanes.count, tuning, chosen_by, sizes=lanes.sizes)

        profile = recall_or(measured, self._key(settings.workers, fixed), one_by_one=True)
        if lanes is None:
            lanes = lanes_of(profile.tuning, profile.sizes)
        while lanes.count < profile.max_runs and lanes.add():
            pass
        largest = lanes.sizes[-1] if lanes.sizes else profile.max_batch
        self.profile = structs.replace(profile, max_runs=lanes.count, max_batch=min(profile.max_batch, largest))
        return lanes

    def _key(self, *settings: float) -> str:
        """Name what a measurement of this model depends on."""
        return key_of(self.card.sha256, self.session.provider, *settings)


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
        sample: makes inputs to measure and to warm up with.
        image_shape: [H, W, 3] of an image; None: the model takes tensors, whose shapes may differ by request.
    """

    sample: Sample
    image_shape: tuple[int, int, int] | None


def _kind_of(card: AnyServed, golden: Mapping[str, bytes]) -> _Kind:
    if isinstance(card, ServedTensors):
        inputs, _ = read_golden(card, golden[card.golden.file])
        return _Kind(partial(repeated, inputs), None)
    shape = (card.recipe.height, card.recipe.width, 3)
    return _Kind(lambda size: {"images": np.zeros((size, *shape), np.uint8)}, shape)
