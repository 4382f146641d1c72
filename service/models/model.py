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
from service.engine.cuda import pin
from service.engine.lanes import Lanes, Sample
from service.engine.profile import CPU_SIZES, Profile, best_batch, measure
from service.engine.profile_cache import key_of, recall, remember
from service.engine.providers import CPU, ProviderError, Tuning, choose
from service.engine.session import Session, SessionError
from service.engine.stop import Stop
from service.engine.widths import measure_widths, thread_counts, used_widths
from service.engine.workers import Workers
from service.models.golden_tensors import read_golden, repeated
from service.models.on_gpu import load_lanes
from service.settings import Settings
from service.telemetry.metrics import Metrics
from zoo.served_card import AnyServed, ServedCard, ServedTensors
from zoo.store import read_folder

CardT_co = TypeVar("CardT_co", bound=AnyServed, covariant=True)
_Load = Callable[..., Session]


class Model(Generic[CardT_co]):
    """A graph that is ready to run.

    Attributes:
        folder: that it was loaded from.
        card: of that folder.
        golden: the files for its self-test, by name; the repository clears them after it.
        provider: the name of the execution provider that it runs on.
        session: runs the graph: on a CPU on the caller's thread, on a GPU on a lane.
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
            metrics: told the size of every batch.
            device_id: of the GPU.
            on_broken: called with the reason when the device can no longer be used.

        Raises:
            SessionError: ONNX Runtime cannot run the graph as asked, or the golden tensors are not usable.
            MemoryError: the device has no memory for one image or row.
        """
        self.folder = folder
        self.card = card
        self.golden = {path.removeprefix("golden/"): data for path, data in files.items() if path.startswith("golden/")}
        kind = _kind_of(card, self.golden)
        graph = files["model.onnx"]
        try:
            self.provider = choose(settings.device)
        except ProviderError as error:
            raise SessionError(str(error)) from error
        load = partial(Session, graph, settings.device, device_id, stop=stop)
        lanes: Lanes | None = None
        sizes: tuple[int, ...] = ()  # batches are padded to these
        self.session: Session | Lanes
        self.wide: list[Session] = []
        if self.provider == CPU:
            self.session = load()
            self.profile = self._recall(self.session, kind, workers.size, len(graph), settings, load)
            self.wide = [load(width=width) for width in used_widths(self.profile.wide)]
            for session in (self.session, *self.wide):
                for size in sorted({1, self.profile.max_batch}):
                    session.run(kind.sample(size))
        else:
            images = kind.image_shape is not None
            self.profile, lanes = load_lanes(card, load, kind.sample, settings, self.provider, device_id, images=images)
            self.session, sizes = lanes, lanes.sizes
        self.batcher = Batcher(
            self.session.run,
            workers,
            self._assembly(kind, workers.size, sizes),
            max_batch=self.profile.max_batch,
            max_runs=self.profile.max_runs,
            max_queue=settings.max_queue,
            cost=self.profile.seconds[1],
            wide={session.width.threads: session.run for session in self.wide},
            lanes=lanes,
            observe_batch=metrics.batch_size.labels(card.name).observe,
            on_broken=on_broken,
        )

    def _recall(
        self, session: Session, kind: "_Kind", workers: int, graph_bytes: int, settings: Settings, load: "_Load"
    ) -> Profile:
        """Return what was measured on a CPU at an earlier start, or measure now."""
        key = key_of(self.card.sha256, CPU, workers, settings.max_batch, settings.run_threads, settings.wide_mb)
        profile = recall(key)
        if profile is None:
            profile = self._measure(session, kind, workers, graph_bytes, settings, load)
            remember(key, profile)
        return profile

    def _measure(
        self, session: Session, kind: "_Kind", workers: int, graph_bytes: int, settings: Settings, load: "_Load"
    ) -> Profile:
        fixed, asked = settings.max_batch, settings.run_threads
        seconds = measure(session.run, kind.sample, sorted({1, fixed}) if fixed else CPU_SIZES)
        session.shrink(kind.sample(1))  # the largest batch may have taken a gigabyte that the chosen one does not need
        max_batch = fixed or best_batch(seconds)
        # Every worker computes on its own core, so as many runs as workers are best. With a batch size that was set,
        # one worker is left to prepare images while the others compute, or no batch would ever be full.
        max_runs = max(1, workers - 1) if fixed > 1 and kind.image_shape else workers
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
        return Profile(seconds, max_batch, max_runs, Tuning(), "setting" if fixed else "measured", wide)

    def _assembly(self, kind: "_Kind", workers: int, sizes: tuple[int, ...]) -> Assembly:
        if kind.image_shape is None:
            return Concatenation()
        # A row for the image of each worker, and for the images of all runs and of the batch that waits for one.
        rows = workers + self.profile.max_batch * (self.profile.max_runs + 1)
        pins = [] if self.provider == CPU else [pin]
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
    """

    sample: Sample
    image_shape: tuple[int, int, int] | None


def _kind_of(card: AnyServed, golden: Mapping[str, bytes]) -> _Kind:
    if isinstance(card, ServedTensors):
        inputs, _ = read_golden(card, golden[card.golden.file])
        return _Kind(partial(repeated, inputs), None)
    shape = (card.recipe.height, card.recipe.width, 3)
    return _Kind(lambda size: {"images": np.zeros((size, *shape), np.uint8)}, shape)
