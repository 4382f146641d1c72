"""Runs on fixed buffers: a GPU's way of running batches of known sizes. Used by `session`; the same code runs on a CPU.

Per batch size ("bucket") and lane there is one binding: its input and outputs lie at fixed addresses on the device, as
CUDA graphs demand, and no run allocates anything.
"""

import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from service.engine.stop import Stop

_DTYPES: Mapping[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


class Binding:
    """One binding of a session: `run` takes exactly one batch size.

    Args:
        session: with one input `images`, and outputs whose shapes are fixed but for the batch.
        size: pictures in a batch.
        device: `cuda` or `cpu`, and its number.
        graph: number of the CUDA graph that the runs are captured in; None: no graph.
        turn: held while the graph runs.
        stop: ends a run when it is asked to.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        size: int,
        device: tuple[str, int],
        graph: int | None = None,
        turn: AbstractContextManager[Any] = nullcontext(),  # noqa: B008 - it holds no state
        stop: Stop | None = None,
    ) -> None:
        _, *picture = session.get_inputs()[0].shape
        self._session = session
        self._turn = turn
        self._names = [output.name for output in session.get_outputs()]
        self._images = ort.OrtValue.ortvalue_from_numpy(np.zeros((size, *picture), np.uint8), *device)
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input("images", self._images)
        for output in session.get_outputs():
            shape = (size, *output.shape[1:])
            value = ort.OrtValue.ortvalue_from_shape_and_type(shape, _DTYPES[output.type], *device)
            self._binding.bind_ortvalue_output(output.name, value)
        self._options = ort.RunOptions()
        if stop is not None:
            stop.watch_runs(self._options)
        if graph is not None:
            self._options.add_run_config_entry("gpu_graph_id", str(graph))

    def run(self, images: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
        """Copy the batch to the device, run, and copy the outputs back. Not from two threads at once."""
        self._images.update_inplace(images)
        with self._turn:
            self._session.run_with_iobinding(self._binding, self._options)
        return dict(zip(self._names, self._binding.copy_outputs_to_cpu(), strict=True))


class BindingPool:
    """Several bindings of every size, so that one batch is copied while another computes.

    Args:
        session, device, stop: as for `Binding`.
        sizes: the batch sizes, rising.
        lanes: how many runs may be under way at once.
        graphs: capture each binding's runs in a CUDA graph of its own. ONNX Runtime replays one graph at a time.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        device: tuple[str, int],
        sizes: Sequence[int],
        lanes: int,
        *,
        graphs: bool = False,
        stop: Stop | None = None,
    ) -> None:
        self._free: dict[int, SimpleQueue[Binding]] = {}
        number = 0
        turn = threading.Lock() if graphs else nullcontext()
        for size in sizes:
            free = self._free[size] = SimpleQueue()
            for _ in range(lanes):
                number += 1
                free.put(Binding(session, size, device, number if graphs else None, turn, stop))

    def knows(self, size: int) -> bool:
        """Whether batches of this size can be run."""
        return size in self._free

    def run(self, images: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
        """Run a batch of a known size, waiting for a binding of that size where all are in use."""
        free = self._free[len(images)]
        bound = free.get()
        try:
            return bound.run(images)
        finally:
            free.put(bound)
