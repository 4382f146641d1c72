"""Which ONNX Runtime providers a session asks for, and whether it got them. Called by `session`."""

import ctypes
import hashlib
import logging
import weakref
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import platformdirs
from msgspec import Struct

from service.telemetry.gpu import visible_gpus
from zoo.extras import install

logger = logging.getLogger(__name__)
Device = Literal["auto", "cpu", "cuda", "tensorrt"]
CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
Options = dict[str, str | int | bool]
_PROVIDERS: dict[Device, str] = {"cpu": CPU, "cuda": CUDA, "tensorrt": TENSORRT}


class ProviderError(Exception):
    """A provider that was asked for and is not available, with what to do."""


class Tuning(Struct, frozen=True):
    """What is chosen per model on a GPU.

    Attributes:
        cudnn_search: how cuDNN picks its convolutions. EXHAUSTIVE tries them all when a shape is first seen. That is
            before the model is ready, as batches are padded to known sizes.
        cuda_graphs: replay a run's kernels as one graph; not every network can be captured.
        nhwc: lay images out with their channels last, as tensor cores want them.
        fuse_bias: add a convolution's bias in its own kernel.
    """

    cudnn_search: Literal["EXHAUSTIVE", "HEURISTIC"] = "EXHAUSTIVE"
    cuda_graphs: bool = False
    nhwc: bool = False
    fuse_bias: bool = False


def choose(device: Device) -> str:
    """Return the name of the provider that a device means on this machine.

    Raises:
        ProviderError: this ONNX Runtime was built without it.
    """
    available = ort.get_available_providers()
    if CUDA in available:
        ort.preload_dlls(directory="")  # the libraries of the nvidia-* wheels, where they are installed
    if device == "auto":
        return CUDA if CUDA in available and gpu_count() else CPU
    provider = _PROVIDERS[device]
    if provider not in available:
        raise ProviderError(
            f"ZOOSERVE_DEVICE={device}, but this ONNX Runtime was built without {provider}: "
            f"pip uninstall onnxruntime, then {install('gpu')}."
        )
    return provider


def requested(provider: str, device_id: int, tuning: Tuning, graph: bytes = b"") -> list[tuple[str, Options]]:
    """List the providers for a session, the wanted one first, each with its options.

    TensorRT names the engines in its cache by the graph's nodes alone, so each `graph` has a folder there.
    """
    cpu: tuple[str, Options] = (CPU, {})
    cuda: tuple[str, Options] = (
        CUDA,
        {
            "device_id": device_id,
            "cudnn_conv_algo_search": tuning.cudnn_search,
            "do_copy_in_default_stream": True,
            "enable_cuda_graph": tuning.cuda_graphs,
            "prefer_nhwc": tuning.nhwc,
            "fuse_conv_bias": tuning.fuse_bias,
        },
    )
    if provider == CPU:
        return [cpu]
    if provider == CUDA:
        return [cuda, cpu]
    folder = platformdirs.user_cache_path("zooserve") / "tensorrt" / hashlib.sha256(graph).hexdigest()[:32]
    folder.mkdir(parents=True, exist_ok=True)
    tensorrt: Options = {
        "device_id": device_id,
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": str(folder),
        "trt_cuda_graph_enable": tuning.cuda_graphs,
    }
    return [(TENSORRT, tensorrt), cuda, cpu]


def check(provider: str, active: Sequence[str]) -> None:
    """Compare what a session runs on with what it was asked to run on: ONNX Runtime only prints a warning.

    Raises:
        ProviderError: it fell back to another provider.
    """
    if provider not in active:
        raise ProviderError(
            f"{provider} was asked for, but ONNX Runtime fell back to {active[0]}. Check the driver and the CUDA "
            f"libraries ({install('gpu')}), or set ZOOSERVE_DEVICE=cpu."
        )


def gpu_count() -> int:
    """How many GPUs CUDA may use here (by NVML, from BentoML's nvidia-ml-py); 0 without a driver."""
    try:
        import pynvml  # noqa: PLC0415 - only where CUDA is in question

        pynvml.nvmlInit()
        return len(visible_gpus(pynvml))
    except Exception:  # no library or no driver: NVML's errors share no other base class
        return 0


def pin(rows: npt.NDArray[np.uint8]) -> None:
    """Lock an array's pages, so that the GPU's copy engine reads them directly. Without it copies are slower."""
    try:
        runtime = ctypes.CDLL("libcudart.so.13")
        failed = runtime.cudaHostRegister(ctypes.c_void_p(rows.ctypes.data), ctypes.c_size_t(rows.nbytes), 0)
    except OSError as error:
        logger.warning("images are not kept in pinned memory: %s", error)
        return
    if failed:
        logger.warning("images are not kept in pinned memory: cudaHostRegister answered %d", failed)
        return
    weakref.finalize(rows, runtime.cudaHostUnregister, ctypes.c_void_p(rows.ctypes.data))
