"""A graph for pictures: batches of known sizes run on fixed buffers where there is a GPU. The batcher runs it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from service.engine.binding import BindingPool
from service.engine.graph import Graph, Outputs, raise_told_apart
from service.engine.providers import Device, Tuning
from service.engine.stop import Stop


class Session(Graph):
    """A loaded graph with one input `images`, uint8 [N, H, W, 3], and the outputs that its card names.

    `run` may be called from several threads at once; each run computes on the thread that called it.
    """

    def __init__(
        self,
        model: bytes | Path,
        device: Device,
        device_id: int = 0,
        tuning: Tuning | None = None,
        stop: Stop | None = None,
    ) -> None:
        super().__init__(model, device, device_id, tuning, stop)
        self._lanes: BindingPool | None = None
        self._cold: Callable[[], None] = lambda: None
        _, self.height, self.width, _ = self._session.get_inputs()[0].shape

    def bind(self, sizes: Sequence[int], lanes: int, cold: Callable[[], None]) -> None:
        """Run these batch sizes on fixed buffers of the device from now on.

        Args:
            sizes: rising.
            lanes: how many runs may be under way at once.
            cold: called when a batch of another size is run all the same.
        """
        device = ("cuda" if self.on_gpu else "cpu", self._device_id)
        self._lanes = BindingPool(self._session, device, sizes, lanes, graphs=self.tuning.cuda_graphs, stop=self._stop)
        self._cold = cold

    def run(self, images: npt.NDArray[np.uint8]) -> Outputs:
        """Compute all outputs for `images`, uint8 [N, H, W, 3]; each output's first dimension is N.

        Raises:
            MemoryError: the device has no room for a batch of this size.
            BrokenDeviceError: the device's context is gone.
        """
        try:
            if self._lanes is not None:
                if self._lanes.knows(len(images)):
                    return self._lanes.run(images)
                self._cold()
            outputs = self._session.run(self.output_names, {"images": images}, self._run_options)
            return dict(zip(self.output_names, outputs, strict=True))
        except Exception as error:
            raise_told_apart(error)
            raise

    def trim(self) -> None:
        """Give back the memory that larger batches needed; a run of one picture goes with it."""
        self.shrink({"images": np.zeros((1, self.height, self.width, 3), np.uint8)})
