"""Fixed buffers of a device for one batch size, and the copies to and from them. Used by `session`.

The buffers lie at the same addresses in every run, as CUDA graphs require, and no run allocates memory there.
"""

import ctypes
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

Array = npt.NDArray[Any]
Image = npt.NDArray[np.uint8]
"""Pixels, uint8 [H, W, 3] RGB; or a batch of them, uint8 [N, H, W, 3]."""
Tensors = Mapping[str, Array]
"""A graph's inputs or outputs by name. Texts are object arrays of `str`."""
Copy = Callable[[int, int, int], None]
"""Copies so many bytes to an address from another one, and returns when they are there."""

_DTYPES: Mapping[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}
_ANY_DIRECTION = 4  # cudaMemcpyDefault: the addresses say which memory is the GPU's


class CaptureGate:
    """Lets many threads use the GPU at once, or one of them capture a CUDA graph.

    ONNX Runtime captures in CUDA's global mode: a copy or an allocation that any other thread of the process makes
    meanwhile fails, and spoils the capture. Graphs are captured only while a model is loaded.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._capturing = False

    @contextmanager
    def use(self) -> Iterator[None]:
        """Use the GPU; waits while a graph is captured."""
        with self._changed:
            self._changed.wait_for(lambda: not self._capturing)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def capture(self) -> Iterator[None]:
        """Capture a graph; waits until no other thread uses the GPU."""
        with self._changed:
            self._changed.wait_for(lambda: not self._capturing)
            self._capturing = True
            self._changed.wait_for(lambda: not self._inside)
        try:
            yield
        finally:
            with self._changed:
                self._capturing = False
                self._changed.notify_all()


GATE = CaptureGate()


class FixedBuffers:
    """Buffers for one batch size. They may be used by one thread at a time.

    Args:
        session: its inputs and outputs have fixed shapes, except for the batch.
        size: rows of a batch.
        device: `cuda` or `cpu`, and its number.
    """

    def __init__(self, session: ort.InferenceSession, size: int, device: tuple[str, int]) -> None:
        self._session = session
        self._copy = cuda_copy() if device[0] == "cuda" else _move
        self._inputs: dict[str, tuple[ort.OrtValue, int]] = {}
        self._outputs: dict[str, tuple[ort.OrtValue, Array]] = {}
        self._binding = session.io_binding()
        for tensor in session.get_inputs():
            zeros = np.zeros((size, *tensor.shape[1:]), _DTYPES[tensor.type])
            value = ort.OrtValue.ortvalue_from_numpy(zeros, *device)
            self._inputs[tensor.name] = value, zeros.nbytes
            self._binding.bind_ortvalue_input(tensor.name, value)
        for tensor in session.get_outputs():
            example = np.empty((size, *tensor.shape[1:]), _DTYPES[tensor.type])
            value = ort.OrtValue.ortvalue_from_shape_and_type(example.shape, example.dtype, *device)
            self._outputs[tensor.name] = value, example
            self._binding.bind_ortvalue_output(tensor.name, value)

    def run(self, inputs: Tensors, options: ort.RunOptions) -> Tensors:
        """Copy a batch of this size to the device, run, and copy the outputs into new arrays.

        The interpreter's lock is free during the copies and the run.
        """
        for name, (value, size) in self._inputs.items():
            array = np.ascontiguousarray(inputs[name])
            self._copy(value.data_ptr(), array.ctypes.data, size)
        self._session.run_with_iobinding(self._binding, options)
        outputs = {}
        for name, (value, example) in self._outputs.items():
            array = outputs[name] = np.empty_like(example)
            self._copy(array.ctypes.data, value.data_ptr(), array.nbytes)
        return outputs

    def warm_up(self, options: ort.RunOptions) -> None:
        """Run what the buffers hold."""
        self._session.run_with_iobinding(self._binding, options)


def cuda_copy() -> Copy:
    """Return CUDA's own copy. ONNX Runtime's (`update_inplace`) holds the interpreter's lock."""
    memcpy = ctypes.CDLL("libcudart.so.13").cudaMemcpy
    memcpy.argtypes = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int

    def copy(to: int, source: int, size: int) -> None:
        if status := memcpy(to, source, size, _ANY_DIRECTION):
            raise RuntimeError(f"CUDA failure {status}: cudaMemcpy of {size} bytes failed")

    return copy


def _move(to: int, source: int, size: int) -> None:
    ctypes.memmove(to, source, size)
