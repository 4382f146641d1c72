"""Runs on fixed buffers: a GPU's way of running batches of known sizes. Used by `session`; the same code runs on a CPU.

For each batch size there are a few bindings. The inputs and outputs of a binding lie at fixed addresses on the device,
as CUDA graphs require, so no run allocates memory there.
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

Array = npt.NDArray[Any]
Image = npt.NDArray[np.uint8]
"""Pixels, uint8 [H, W, 3] RGB; or a batch of them, uint8 [N, H, W, 3]."""
Tensors = Mapping[str, Array]
"""A graph's inputs or outputs by name. Texts are object arrays of `str`."""

_DTYPES: Mapping[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


class Binding:
    """Fixed buffers for one batch size. It may be used by one thread at a time.

    Args:
        session: its inputs and outputs have fixed shapes, except for the batch.
        size: rows of a batch.
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
        turn: AbstractContextManager[object] = nullcontext(),  # noqa: B008 - it holds no state
        stop: Stop | None = None,
    ) -> None:
        self._session = session
        self._turn = turn
        self._output_names = [output.name for output in session.get_outputs()]
        self._inputs: dict[str, ort.OrtValue] = {}
        self._binding = session.io_binding()
        for tensor in session.get_inputs():
            zeros = np.zeros((size, *tensor.shape[1:]), _DTYPES[tensor.type])
            value = self._inputs[tensor.name] = ort.OrtValue.ortvalue_from_numpy(zeros, *device)
            self._binding.bind_ortvalue_input(tensor.name, value)
        for tensor in session.get_outputs():
            shape = (size, *tensor.shape[1:])
            value = ort.OrtValue.ortvalue_from_shape_and_type(shape, _DTYPES[tensor.type], *device)
            self._binding.bind_ortvalue_output(tensor.name, value)
        self._options = ort.RunOptions()
        if stop is not None:
            stop.watch_runs(self._options)
        if graph is not None:
            self._options.add_run_config_entry("gpu_graph_id", str(graph))

    def run(self, inputs: Tensors) -> Tensors:
        """Copy the batch to the device, run, and copy the outputs back into new arrays."""
        for name, value in self._inputs.items():
            value.update_inplace(inputs[name])
        with self._turn:
            self._session.run_with_iobinding(self._binding, self._options)
        return dict(zip(self._output_names, self._binding.copy_outputs_to_cpu(), strict=True))


class BindingPool:
    """Several bindings for every batch size, so that one batch is copied while another computes.

    Args:
        session, device, stop: as for `Binding`.
        sizes: the batch sizes, rising.
        runs: how many runs may be under way at once.
        graphs: capture each binding's runs in a CUDA graph. ONNX Runtime replays one graph at a time, so a lock that
            all bindings share is held during a run.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        device: tuple[str, int],
        sizes: Sequence[int],
        runs: int,
        *,
        graphs: bool = False,
        stop: Stop | None = None,
    ) -> None:
        self._free: dict[int, SimpleQueue[Binding]] = {}
        number = 0
        turn = threading.Lock() if graphs else nullcontext()
        for size in sizes:
            free = self._free[size] = SimpleQueue()
            for _ in range(runs):
                number += 1
                free.put(Binding(session, size, device, number if graphs else None, turn, stop))

    def knows(self, inputs: Tensors) -> bool:
        """Whether there are bindings for batches of this size."""
        return _size(inputs) in self._free

    def run(self, inputs: Tensors) -> Tensors:
        """Run a batch of a known size, waiting for a binding of that size where all are in use."""
        free = self._free[_size(inputs)]
        binding = free.get()
        try:
            return binding.run(inputs)
        finally:
            free.put(binding)


def _size(inputs: Tensors) -> int:
    """The rows of a batch."""
    return len(next(iter(inputs.values())))
