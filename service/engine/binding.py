"""Runs on fixed buffers: a GPU's way of running batches of one size. Used by `session`, on the thread of a lane."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnxruntime as ort

from service.arrays import Array, Image, Tensors
from service.engine.cuda import Stream
from service.engine.pieces import Jpegs, contiguous

_DTYPES: Mapping[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}
Fill = Callable[[Sequence[tuple[Image, int]]], None]
"""Fills rows with what JPEGs show: each file, and the address of its row on the device."""


class Binding:
    """Buffers on the device for a session of one batch size. Made and used by one thread.

    Copies and the run are queued in one stream and waited for once. They lie on the device, although ONNX Runtime takes
    buffers in the host's memory too: it copies such an input when it is bound and not when it is run (seen with 1.31),
    and a CUDA graph needs addresses that stay.

    Args:
        session: its inputs and outputs have fixed shapes, except that outputs may name the batch.
        size: rows of a batch.
        stream: in which the session runs.
    """

    def __init__(self, session: ort.InferenceSession, size: int, stream: Stream) -> None:
        self._session = session
        self._stream = stream
        self._binding = session.io_binding()
        self._inputs: dict[str, tuple[ort.OrtValue, Array]] = {}
        self._outputs: dict[str, tuple[ort.OrtValue, Array]] = {}
        for tensors, values, bind in (
            (session.get_inputs(), self._inputs, self._binding.bind_ortvalue_input),
            (session.get_outputs(), self._outputs, self._binding.bind_ortvalue_output),
        ):
            for tensor in tensors:
                like = np.empty((size, *tensor.shape[1:]), _DTYPES[tensor.type])
                value = ort.OrtValue.ortvalue_from_shape_and_type(like.shape, like.dtype, *stream.device)
                values[tensor.name] = value, like
                bind(tensor.name, value)

    def run(self, inputs: Tensors, options: ort.RunOptions, fill: Fill | None = None) -> Tensors:
        """Copy the batch to the device, run, and copy the outputs into new arrays, without the interpreter's lock.

        Args:
            inputs: by name.
            options: of the run.
            fill: decodes the JPEGs of the batch; None: there are none.

        Raises:
            RequestError: a JPEG cannot be decoded.
            ValueError: an input has another shape or type than the buffer.
        """
        batch = {name: contiguous(inputs[name]) for name in self._inputs}
        jpegs: list[tuple[Image, int]] = []
        for name, (value, like) in self._inputs.items():
            pieces, address, size = batch[name], value.data_ptr(), like[0].nbytes
            rows = sum(map(len, pieces))
            for piece in pieces:
                given = like if isinstance(piece, Jpegs) else piece
                shape = (rows, *given.shape[1:])
                if (shape, given.dtype) != (like.shape, like.dtype):
                    raise ValueError(f"{name} is {given.dtype} {shape}, its buffer {like.dtype} {like.shape}")
                if isinstance(piece, Jpegs):
                    jpegs += [(jpeg, address + i * size) for i, jpeg in enumerate(piece)]
                else:
                    self._stream.copy_in(address, piece)
                address += len(piece) * size
        if jpegs:
            assert fill is not None  # noqa: S101 - only a lane that has a decoder gets them
            try:
                fill(jpegs)
            except BaseException:
                self._stream.wait()  # else the rows would be free while they are copied
                raise
        self._session.run_with_iobinding(self._binding, options)
        outputs = {name: np.empty_like(like) for name, (_, like) in self._outputs.items()}
        for name, (value, _) in self._outputs.items():
            self._stream.copy_out(outputs[name], value.data_ptr())
        self._stream.wait()
        return outputs
