"""Which ONNX Runtime providers a session asks for, and whether it got them. Called by `session`."""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import onnxruntime as ort
from msgspec import Struct

from service.telemetry.gpu import find_gpus
from zoo.extras import install
from zoo.home import cache_folder

logger = logging.getLogger(__name__)
Device = Literal["auto", "cpu", "cuda", "tensorrt"]
CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
GPUS = (CUDA, TENSORRT)
Options = dict[str, str | int | bool]
Providers = list[tuple[str, Options]]
_KEPT_IN = "trt_engine_cache_path"
_UNREADABLE = "could not deserialize engine from cache"
_PROVIDERS: dict[Device, str] = {"cpu": CPU, "cuda": CUDA, "tensorrt": TENSORRT}


class ProviderError(Exception):
    """A provider that was asked for and is not available, with what to do."""


class Tuning(Struct, frozen=True):
    """What is chosen per model on a GPU.

    Attributes:
        cudnn_search: how cuDNN picks its convolutions, when a session sees a shape first; that is before it serves.
        nhwc: convolutions take their channels last.
        fuse_bias: a convolution and the bias behind it are one kernel.
        tf32: float32 is multiplied with 10 bits of mantissa.
        cuda_graphs: replay a run's kernels as one graph; not every network can be captured.
        fp16: TensorRT may compute in float16, as the card of the model says.
    """

    cudnn_search: Literal["EXHAUSTIVE", "HEURISTIC"] = "HEURISTIC"
    nhwc: bool = False
    fuse_bias: bool = False
    tf32: bool = False
    cuda_graphs: bool = False
    fp16: bool = False


def choose(device: Device) -> str:
    """Return the name of the provider that a device means on this machine.

    Raises:
        ProviderError: this ONNX Runtime was built without it.
    """
    available = available_providers()
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


def available_providers() -> list[str]:
    """Return the names of the providers with which this ONNX Runtime was built."""
    names: list[str] = ort.get_available_providers()
    return names


def requested(
    provider: str, device_id: int, tuning: Tuning, graph: bytes = b"", batch: int = 0, stream: int = 0
) -> Providers:
    """List the providers for a session, the wanted one first, each with its options.

    Args:
        provider: the wanted one.
        device_id: of the GPU.
        tuning: of the GPU.
        graph: `model.onnx`.
        batch: the rows of every run; 0: any number.
        stream: the `cudaStream_t` for all work of the session; 0: it makes its own.
    """
    cpu: tuple[str, Options] = (CPU, {})
    if provider == CPU:
        return [cpu]
    common: Options = {"device_id": device_id}
    if stream:
        common["user_compute_stream"] = str(stream)
    cuda = common | {
        "cudnn_conv_algo_search": tuning.cudnn_search,
        "do_copy_in_default_stream": True,
        "prefer_nhwc": tuning.nhwc,
        "fuse_conv_bias": tuning.fuse_bias,
        "use_tf32": tuning.tf32,
        "enable_cuda_graph": tuning.cuda_graphs,
        # With the batch fixed it is known what is needed; by default twice as much may be taken.
        "arena_extend_strategy": "kSameAsRequested" if batch else "kNextPowerOfTwo",
    }
    if provider == CUDA:
        return [(CUDA, cuda), cpu]
    tensorrt = common | _kept_engines(graph, batch)
    tensorrt |= {"trt_fp16_enable": tuning.fp16, "trt_cuda_graph_enable": tuning.cuda_graphs}
    return [(TENSORRT, tensorrt), (CUDA, cuda), cpu]


def _kept_engines(graph: bytes, batch: int) -> Options:
    """Say where TensorRT keeps the engines of a graph. Where no folder can be made, each start builds them anew.

    TensorRT names them by the graph's nodes alone: each graph has a folder there, and each batch. With the batch all
    shapes are fixed, so there are no ranges of shapes (profiles) to give.
    """
    folder = cache_folder() / "tensorrt" / hashlib.sha256(graph + str(batch).encode()).hexdigest()[:32]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        logger.warning("engines of TensorRT are not kept: the next start builds them again. %s", error)
        return {}
    return {
        _KEPT_IN: str(folder),
        "trt_engine_cache_enable": True,
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": str(folder.parent),
    }


def remove_engines(providers: Providers, problem: str) -> bool:
    """Remove the engines that a session was to use, if they are the problem: damaged, or made by another TensorRT.

    Args:
        providers: of the session.
        problem: why it could not be made.

    Returns:
        Whether it is to be made again.
    """
    folder = next((str(options[_KEPT_IN]) for _, options in providers if _KEPT_IN in options), "")
    if not folder or _UNREADABLE not in problem:
        return False
    logger.warning("engines of TensorRT cannot be used and are built anew: %s", problem)
    try:
        files = [*Path(folder).iterdir()]
        for file in files:
            file.unlink()
    except OSError:  # the folder cannot be written
        return False
    return bool(files)


def check(provider: str, active: Sequence[str]) -> None:
    """Compare what a session runs on with what it was asked to run on: ONNX Runtime only prints a warning.

    Raises:
        ProviderError: it fell back to another provider.
    """
    if provider not in active:
        own = " TensorRT's libraries (libnvinfer.so.10) must be on LD_LIBRARY_PATH." if provider == TENSORRT else ""
        raise ProviderError(
            f"{provider} was asked for, but ONNX Runtime fell back to {active[0]}. Check the driver and the CUDA "
            f"libraries ({install('gpu')}), or set ZOOSERVE_DEVICE=cpu.{own}"
        )


def gpu_count() -> int:
    """How many GPUs CUDA may use here; 0 without a driver."""
    gpus = find_gpus()
    return len(gpus.handles) if gpus else 0
