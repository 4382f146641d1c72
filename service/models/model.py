"""A folder of the store, loaded: its card, its session, its measured profile and its queue. The repository calls it.

Models of images and models of tensors are one class. What differs is in `kind_of`, and follows from the card.
"""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Generic, NamedTuple, TypeGuard, TypeVar

import numpy as np

from service.arrays import Tensors
from service.engine.assembly import Assembly, Concatenation, ImageBuffer, ImageRows, Run
from service.engine.batcher import Batcher
from service.engine.cuda import pin
from service.engine.intake import Admission
from service.engine.lanes import Lanes, Sample
from service.engine.profile import Profile
from service.engine.providers import GPUS, ProviderError, choose
from service.engine.session import Session, SessionError
from service.engine.stop import Stop
from service.engine.workers import Workers
from service.models.golden_tensors import read_golden, repeated
from service.models.inputs import recipe_of
from service.models.on_cpu import CpuLoader
from service.models.on_gpu import load_lanes
from service.models.selftest import SelfTestError, self_test
from service.models.usage import Usage
from service.settings import Settings
from service.telemetry.metrics import Metrics
from zoo.served_card import AnyServed, ServedCard, ServedTensors
from zoo.store import read_folder

logger = logging.getLogger(__name__)
CardT_co = TypeVar("CardT_co", bound=AnyServed, covariant=True)


class Model(Generic[CardT_co]):
    """A graph that answers requests.

    Attributes:
        folder: that it was loaded from.
        card: of that folder.
        provider: the name of the execution provider that it runs on.
        profile: what was measured, and chosen.
        batcher: its queue.
        usage: the requests that use it.
    """

    folder: Path
    card: CardT_co
    provider: str
    profile: Profile
    batcher: Admission
    usage: Usage

    def run(self, inputs: Tensors) -> Tensors:
        """Compute a batch on the calling thread, without the queue."""
        raise NotImplementedError


class LoadedModel(Model[AnyServed]):
    """A graph that is ready to run in this process.

    Attributes:
        golden: the files for its self-test, by name; the repository clears them after it.
        session: runs the graph: on a CPU on the caller's thread, on a GPU on a lane.
        wide: run it on several threads of a CPU, with rising numbers of them.
        assembly: how its batches are put together.
    """

    batcher: Batcher

    def __init__(
        self,
        folder: Path,
        stop: Stop,
        settings: Settings,
        workers: Workers,
        metrics: Metrics,
        device_id: int = 0,
        on_broken: Callable[[str], None] = lambda _: None,
        assemble: "Assemble | None" = None,
    ) -> None:
        """Verify a folder, and load, measure and warm up its graph. No file is read again.

        Args:
            folder: of the store.
            stop: ends the loading when it is asked to.
            settings: give the device and, where it is not to be measured, the batch size.
            workers: the threads that all models share.
            metrics: told the size of every batch.
            device_id: of the GPU.
            on_broken: called with the reason when the device can no longer be used.
            assemble: says how batches are put together; None: from this process' own inputs.

        Raises:
            StoreError: the folder is not as it was published.
            SessionError: ONNX Runtime cannot run the graph as asked, or the golden tensors are not usable.
            MemoryError: the device has no memory for one image or row.
        """
        contents = read_folder(folder)
        card, files = contents.card, contents.files
        self.folder = folder
        self.card = card
        self.usage = Usage()
        self.golden = {path.removeprefix("golden/"): data for path, data in files.items() if path.startswith("golden/")}
        kind = kind_of(card, self.golden)
        graph = files["model.onnx"]
        images = kind.image_shape is not None
        # TensorRT would build an engine, which takes minutes, for each shape that a request brings.
        device = "cuda" if settings.device == "tensorrt" and not images else settings.device
        try:
            self.provider = choose(device)
        except ProviderError as error:
            raise SessionError(str(error)) from error
        load = partial(Session, graph, device, device_id, stop=stop)
        lanes: Lanes | None = None
        sizes: tuple[int, ...] = ()  # batches are padded to these
        self.session: Session | Lanes
        self.wide: list[Session] = []
        if self.provider not in GPUS:
            golden = partial(self._answers_as_golden, settings=settings)
            size = len(graph)
            loader = CpuLoader(card, load, kind.sample, settings, workers.size, size, golden=golden)
            self.profile, narrow, self.wide = loader.load()
            self.session, self.provider = narrow, narrow.provider
        else:
            self.profile, lanes = load_lanes(
                card, load, kind.sample, settings, self.provider, device_id, images=images, golden=self.golden
            )
            self.session, sizes = lanes, lanes.sizes
        jpegs = lanes is not None and lanes.decodes
        parts = Parts(card, self.session.run, kind.sample, kind.image_shape, self.profile, sizes, jpegs)
        self.assembly = assemble(parts) if assemble else _assembly(parts, workers.size)
        self.batcher = Batcher(
            self.session.run,
            workers,
            self.assembly,
            max_batch=self.profile.max_batch,
            max_runs=self.profile.max_runs,
            max_queue=settings.max_queue,
            cost=self.profile.seconds[1],
            wide={session.width.threads: session.run for session in self.wide},
            lanes=lanes,
            observe_batch=metrics.batch_size.labels(card.name).observe,
            on_broken=on_broken,
        )

    def _answers_as_golden(self, run: Run, settings: Settings) -> bool:
        try:
            self_test(self.card, self.golden, run, settings)
        except SelfTestError as error:
            logger.warning("a plug-in is not used for %s: %s", self.card.name, error)
            return False
        return True

    def run(self, inputs: Tensors) -> Tensors:
        return self.session.run(inputs)


class Parts(NamedTuple):
    """What an assembly must know of a loaded graph.

    Attributes:
        card: of its folder.
        run: computes a batch.
        sample: makes inputs.
        image_shape: [H, W, 3] of an image; None: the model takes tensors, whose shapes may differ by request.
        profile: what was measured, and chosen.
        sizes: of batches, which are padded to these; empty: on a CPU.
        jpegs: the runs decode JPEGs.
    """

    card: AnyServed
    run: Run
    sample: Sample
    image_shape: tuple[int, int, int] | None
    profile: Profile
    sizes: tuple[int, ...]
    jpegs: bool


Assemble = Callable[[Parts], Assembly]


def _assembly(parts: Parts, workers: int) -> Assembly:
    if parts.image_shape is None:
        return Concatenation()
    # A row for the image of each worker, and for the images of all runs and of the batch that waits for one.
    profile = parts.profile
    rows = workers + profile.max_batch * (profile.max_runs + 1)
    pins = [pin] if parts.sizes else []
    buffer = ImageBuffer(rows, profile.max_batch, parts.image_shape, *pins)
    return ImageRows(buffer, parts.sizes, jpegs=parts.jpegs)


ImageModel = Model[ServedCard]
AnyModel = Model[AnyServed]


def takes_images(model: AnyModel) -> TypeGuard[ImageModel]:
    """Whether a model has a task of images; otherwise its outputs are answered as they are."""
    return isinstance(model.card, ServedCard)


class _Kind(NamedTuple):
    """How models of images and models of tensors differ.

    Attributes:
        sample: makes inputs to measure and to warm up with.
        image_shape: [H, W, 3] of an image; None: the model takes tensors, whose shapes may differ by request.
    """

    sample: Sample
    image_shape: tuple[int, int, int] | None


def kind_of(card: AnyServed, golden: Mapping[str, bytes]) -> _Kind:
    """Say of which kind a model is, by its card and, of one for tensors, its golden inputs, by name of the file."""
    if isinstance(card, ServedTensors) and card.recipe is None:
        inputs, _ = read_golden(card, golden[card.golden.file])
        return _Kind(partial(repeated, inputs), None)
    recipe = recipe_of(card)
    shape = (recipe.height, recipe.width, 3)
    return _Kind(lambda size: {"images": np.zeros((size, *shape), np.uint8)}, shape)
