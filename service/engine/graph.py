"""One ONNX graph on the provider that was asked for, or an error: arrays by name in, arrays by name out.

`session` makes it one for pictures; `tensors` uses it as it is.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnxruntime as ort

from service.engine.providers import CPU, Device, ProviderError, Tuning, check, choose, requested
from service.engine.stop import Stop
from zoo.card import LARGEST_GRAPH
from zoo.files import read_regular

Outputs = Mapping[str, npt.NDArray[Any]]
# After these, every call into CUDA fails: the process' context is gone.
_BROKEN = (
    "illegal memory access",
    "device-side assert",
    "unspecified launch failure",
    "misaligned address",
    "uncorrectable ECC error",
    "GPU has fallen off the bus",
    "CUDA failure 4:",  # the driver is shutting down
    "CUDA failure 46:",  # devices are busy or unavailable
    "CUDA failure 700",
    "CUDA failure 710",
    "CUDA failure 719",
)
# What ONNX Runtime says of a tensor whose values are in a file of their own, wherever in the graph it is.
_EXTERNAL = ("xternal data", "external TensorProto", "Data of TensorProto", "in-memory address marker")
_NOWHERE = "/dev/null/none"  # no file can be there
_NO_MEMORY = ("out of memory", "Failed to allocate memory", "BFCArena", "CUDA error 2", "bad allocation")


class BrokenDeviceError(Exception):
    """A GPU that this process can no longer use: only a restart helps."""


class SessionError(Exception):
    """A graph that cannot be run as it was asked to be, with the reason."""


class Graph:
    """A loaded graph. `compute` may be called from several threads at once; each run computes on its caller's."""

    def __init__(
        self,
        model: bytes | Path,
        device: Device,
        device_id: int = 0,
        tuning: Tuning | None = None,
        stop: Stop | None = None,
    ) -> None:
        """Load `model`.

        Args:
            model: the bytes of the `model.onnx`, or its path. It is read once, and no other file is: data outside it
                would be read again later, by then perhaps changed.
            device: `auto` takes CUDA where this ONNX Runtime was built with it and there is a GPU, else the CPU.
            device_id: of the GPU.
            tuning: of the GPU.
            stop: ends the loading, and every run, when it is asked to.

        Raises:
            SessionError: the graph does not load, needs another file, or ONNX Runtime fell back to another provider.
        """
        self.tuning = tuning or Tuning()
        self._device_id = device_id
        self._stop = stop or Stop()
        self._run_options = ort.RunOptions()
        self._stop.watch_runs(self._run_options)
        try:
            self.provider = choose(device)
            data = model if isinstance(model, bytes) else read_regular(model, LARGEST_GRAPH)
            providers = requested(self.provider, device_id, self.tuning, data)
            # Without `enable_fallback=0` whatever fails is tried again on the CPU.
            self._session = ort.InferenceSession(data, self._session_options(), providers=providers, enable_fallback=0)
            self._session._model_bytes = None  # it is kept for that alone, and as large as the weights
            check(self.provider, self._session.get_providers())
        except ProviderError as error:
            raise SessionError(str(error)) from error
        except Exception as error:  # ONNX Runtime's own exceptions share no base class but this
            if any(words in str(error) for words in _EXTERNAL):
                raise SessionError(
                    "model.onnx keeps weights in another file, which could change after it was checked. Save it with "
                    f"all its weights inside (onnx.save(onnx.load(path), path)). ONNX Runtime says: {error}"
                ) from error
            raise SessionError(f"ONNX Runtime cannot load model.onnx: {error}") from error
        self.output_names = tuple(output.name for output in self._session.get_outputs())

    def _session_options(self) -> ort.SessionOptions:
        options = ort.SessionOptions()
        # One thread computes and nobody spins: runs side by side use the cores better (506 pictures/s, not 289).
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        options.add_session_config_entry("session.load_model_format", "ONNX")  # the bytes are not to decide
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", _NOWHERE)
        options.log_severity_level = 3
        self._stop.watch_session(options)
        return options

    @property
    def on_gpu(self) -> bool:
        """Whether the graph runs on a GPU."""
        return self.provider != CPU

    def compute(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Outputs:
        """Compute all outputs.

        Raises:
            MemoryError: the device has no room for inputs of this size.
            BrokenDeviceError: the device's context is gone.
        """
        try:
            return dict(
                zip(self.output_names, self._session.run(self.output_names, inputs, self._run_options), strict=True)
            )
        except Exception as error:
            raise_told_apart(error)
            raise

    def shrink(self, inputs: Mapping[str, npt.NDArray[Any]]) -> None:
        """Give back the memory that larger runs needed; a run of these inputs goes with it."""
        options = ort.RunOptions()
        arenas = f"cpu:0;gpu:{self._device_id}" if self.on_gpu else "cpu:0"
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", arenas)
        self._session.run(self.output_names, inputs, options)


def raise_told_apart(error: Exception) -> None:
    """Raise what an error of ONNX Runtime's means where it is no memory (`MemoryError`) or a broken device."""
    if any(words in str(error) for words in _NO_MEMORY):
        raise MemoryError(str(error)) from error
    if any(words in str(error) for words in _BROKEN):
        raise BrokenDeviceError(str(error)) from error
