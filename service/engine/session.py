"""One ONNX Runtime session: a graph on the provider that was asked for, or an error. The batcher runs it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

Device = Literal["auto", "cpu", "cuda"]
Outputs = Mapping[str, npt.NDArray[Any]]


class SessionError(Exception):
    """A graph that cannot be run as it was asked to be, with the reason."""


class Session:
    """A loaded graph with one input `images`, uint8 [N, H, W, 3], and the outputs that its card names.

    `run` may be called from several threads at once; each run computes on the thread that called it.
    """

    def __init__(self, model: Path, device: Device, device_id: int = 0) -> None:
        """Load `model`.

        Args:
            model: path of the `model.onnx`.
            device: `auto` takes CUDA where this ONNX Runtime was built with it and it works, else the CPU.
            device_id: of the GPU.

        Raises:
            SessionError: the graph does not load, or CUDA was asked for and ONNX Runtime fell back to the CPU.
        """
        self.provider = _choose(device)
        self._device_id = device_id
        options = ort.SessionOptions()
        # One thread computes and nobody spins: runs side by side use the cores better (506 pictures/s, not 289).
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        options.log_severity_level = 3
        providers: list[Any] = [("CUDAExecutionProvider", {"device_id": device_id})] if self.on_gpu else []
        try:
            self._session = ort.InferenceSession(str(model), options, providers=[*providers, "CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's own exceptions share no base class but this
            raise SessionError(f"ONNX Runtime cannot load {model.name}: {error}") from error
        active = self._session.get_providers()
        if self.provider not in active:
            raise SessionError(
                f"{self.provider} was asked for, but ONNX Runtime fell back to {active[0]}. Check the driver and the "
                "CUDA libraries (pip install 'zooserve[gpu]'), or set ZOOSERVE_DEVICE=cpu."
            )
        self.output_names = tuple(output.name for output in self._session.get_outputs())
        _, self.height, self.width, _ = self._session.get_inputs()[0].shape

    @property
    def on_gpu(self) -> bool:
        """Whether the graph runs on CUDA."""
        return self.provider == "CUDAExecutionProvider"

    def run(self, images: npt.NDArray[np.uint8]) -> Outputs:
        """Compute all outputs for `images`, uint8 [N, H, W, 3]; each output's first dimension is N."""
        return dict(zip(self.output_names, self._session.run(self.output_names, {"images": images}), strict=True))

    def trim(self) -> None:
        """Give back the memory that larger batches needed; a run of one picture goes with it."""
        options = ort.RunOptions()
        arenas = f"cpu:0;gpu:{self._device_id}" if self.on_gpu else "cpu:0"
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", arenas)
        image = np.zeros((1, self.height, self.width, 3), np.uint8)
        self._session.run(self.output_names, {"images": image}, options)


def _choose(device: Device) -> str:
    if device == "cpu":
        return "CPUExecutionProvider"
    available = "CUDAExecutionProvider" in ort.get_available_providers()
    if available:
        ort.preload_dlls(directory="")  # the libraries of the nvidia-* wheels, where they are installed
    if device == "cuda":
        if not available:
            raise SessionError(
                "ZOOSERVE_DEVICE=cuda, but this ONNX Runtime was built without CUDA: pip install 'zooserve[gpu]' "
                "in place of 'zooserve[cpu]'."
            )
        return "CUDAExecutionProvider"
    return "CUDAExecutionProvider" if available and _has_gpu() else "CPUExecutionProvider"


def _has_gpu() -> bool:
    """Whether the NVIDIA driver shows a GPU (NVML comes with BentoML as nvidia-ml-py)."""
    try:
        import pynvml  # noqa: PLC0415 - only where CUDA is in question

        pynvml.nvmlInit()
        return bool(pynvml.nvmlDeviceGetCount())
    except Exception:
        return False
