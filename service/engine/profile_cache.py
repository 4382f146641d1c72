"""What was measured of models, kept in the user's cache folder so that the next start on the same machine is quick."""

import ctypes
import hashlib
import logging
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import msgspec
import onnxruntime as ort
from filelock import FileLock
from msgspec import Struct

from service.engine.jpegs import version
from service.engine.providers import CPU
from service.telemetry.gpu import visible_gpus
from zoo.files import read_regular, replacing
from zoo.home import cache_folder

logger = logging.getLogger(__name__)
T = TypeVar("T")
_PATIENCE_S = 300.0
_PRIVATE = 0o600  # of the lock: for this user alone
_FORM = "7"  # of a profile; one of another form is measured again


def recall(key: str, kind: type[T]) -> T | None:
    """Return what was measured under this key at an earlier start, if it is there and readable."""
    try:
        return msgspec.json.decode(read_regular(_path(key)), type=kind)
    except (OSError, msgspec.DecodeError):
        return None


def remember(key: str, measured: Struct) -> None:
    """Keep what was measured for the next start. Where it cannot be written, the next start measures again."""
    try:
        with replacing(_path(key)) as file:
            file.write(msgspec.json.encode(measured))
    except OSError as error:
        logger.info("what was measured is not kept: %s", error)


def key_of(model_sha256: str, provider: str, workers: int, *settings: float | str, device_id: int = 0) -> str:
    """Name what a measurement depends on: graph, provider, versions, machine, worker threads, and what is set.

    Args:
        model_sha256: of the graph.
        provider: that runs it.
        workers: threads.
        settings: and what else is chosen.
        device_id: of the GPU, where one runs it.
    """
    machine = (platform.machine(), _processor(), str(workers))
    gpu = () if provider == CPU else (*_gpu(device_id), version())
    parts = (_FORM, model_sha256, provider, ort.__version__, *machine, *gpu, *map(str, settings))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


@contextmanager
def measuring() -> Iterator[None]:
    """Wait until no other process of this user measures; none does while the block runs.

    Where the folder cannot be written, or one measures for more than five minutes, they may disturb each other.
    """
    path = _path("measuring").with_suffix(".lock")
    lock = FileLock(path, timeout=_PATIENCE_S, mode=_PRIVATE)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(_PRIVATE)
        path.chmod(_PRIVATE)  # who may open it may lock it, and would keep models from being loaded
        lock.acquire()
    except OSError as error:  # or a timeout, which is one
        logger.info("other processes may measure at the same time: %s", error)
    try:
        yield
    finally:
        lock.release()


def _path(key: str) -> Path:
    return cache_folder() / "profiles" / f"{key}.json"


def _processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _gpu(device_id: int) -> tuple[str, ...]:
    """The name of a GPU, and the versions of its driver and of cuDNN; what cannot be found out is left out."""
    found = []
    with suppress(OSError):
        found.append(str(ctypes.CDLL("libcudnn.so.9").cudnnGetVersion()))
    try:
        import pynvml  # noqa: PLC0415 - only where there is a driver

        pynvml.nvmlInit()
        gpu = list(visible_gpus(pynvml).values())[device_id]
        found += [str(pynvml.nvmlDeviceGetName(gpu)), str(pynvml.nvmlSystemGetDriverVersion())]
    except Exception as error:  # no library or no driver: NVML's errors share no other base class
        # As text: whoever keeps the record would keep the frames of the error, and with them the model that is loaded.
        logger.info("NVML does not tell the GPU's name: %s", str(error))
    return tuple(found)
