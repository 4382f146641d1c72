"""Models of the store on the engine that serves, without a server: its sessions, lanes and streams."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from service.arrays import Tensors
from service.engine.cuda import Stream, pin
from service.engine.device_errors import BrokenDeviceError
from service.engine.jpegs import DecodeError, JpegDecoder
from service.engine.lanes import Lanes
from service.engine.providers import CUDA, ProviderError, Tuning, choose, requested
from service.engine.session import Session
from zoo.recipe import apply_exact
from zoo.served_card import require_images
from zoo.store import Store

__all__ = [
    "CUDA",
    "BrokenDeviceError",
    "DecodeError",
    "Images",
    "JpegDecoder",
    "Lanes",
    "Model",
    "Session",
    "Stream",
    "Tensors",
    "Tuning",
    "difference",
    "need_cuda",
    "pin",
    "requested",
    "scores_apart",
]
Images = npt.NDArray[np.uint8]


def need_cuda(device: str) -> None:
    """Make sure that a step is about a GPU, and load CUDA's libraries.

    Raises:
        ProviderError: it is not, or this ONNX Runtime was built without CUDA.
    """
    if device != "cuda":
        raise ProviderError("this step needs --provider cuda")
    choose("cuda")


class Model:
    """One folder of the store: its graph, and real photos in the size that it wants.

    Args:
        root: of the store.
        name: of the model; its latest version is taken.
    """

    def __init__(self, root: Path, name: str) -> None:
        entry = Store(root).latest(name)
        assert entry.card is not None  # noqa: S101 - `plan.chosen` left the others out
        self.card = require_images(entry.card)
        self.name = name
        self.path = entry.path / "model.onnx"
        self.golden = [entry.path / "golden" / golden.photo for golden in self.card.golden]
        photos = [Image.open(path).convert("RGB") for path in self.golden]
        self._photos = np.stack([apply_exact(self.card.recipe, photo) for photo in photos])

    def images(self, rows: int) -> Images:
        """Return its golden photos over and over, uint8 [rows, H, W, 3]."""
        return np.ascontiguousarray(np.resize(self._photos, (rows, *self._photos.shape[1:])))

    def inputs(self, rows: int) -> Tensors:
        """The same as the graph's input."""
        return {"images": self.images(rows)}

    def session(self) -> Session:
        """Load the graph for any batch size, on CUDA, without fixed buffers."""
        return Session(self.path, "cuda")

    def lanes(
        self,
        sizes: Sequence[int],
        tuning: Tuning | None = None,
        count: int = 1,
        make_stream: type[Stream] = Stream,
    ) -> Lanes:
        """Make warm lanes, as they serve."""
        tuning = tuning or Tuning()

        def load(size: int, stream: Stream | None) -> Session:
            return Session(self.path, "cuda", tuning=tuning, batch=size, stream=stream)

        lanes = Lanes(load, sizes, self.inputs, graphs=tuning.cuda_graphs, make_stream=make_stream)
        for _ in range(count):
            lanes.add()
        return lanes


def scores_apart(expected: Tensors, given: Tensors) -> float:
    """Return the largest difference of scores: of outputs that are float32 [N, C]. NaN where one is no number."""
    scores = [name for name, one in expected.items() if one.ndim == 2 and one.dtype == np.float32]
    return float(np.max([0.0, *(np.abs(expected[name] - given[name]).max() for name in scores)]))


def difference(expected: Tensors, given: Tensors) -> str:
    """Say how far outputs are apart: the largest difference of scores, the share of the pixels of masks."""
    masks = [name for name, one in expected.items() if one.dtype == np.uint8]
    pixels = [f"{name} in {np.mean(expected[name] != given[name]):.2%} of the pixels" for name in masks]
    return f"answers differ: {', '.join([f'scores by up to {scores_apart(expected, given):.4f}', *pixels])}"
