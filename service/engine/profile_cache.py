"""Measured profiles, kept in the user's cache folder so that the next start on the same machine is quick."""

import hashlib
import logging
import platform
from pathlib import Path
from time import perf_counter

import msgspec
import onnxruntime as ort
import platformdirs

from service.engine.profile import Profile
from zoo.files import read_regular

logger = logging.getLogger(__name__)
_FORM = "3"  # of a profile; one of another form is measured again


def recall(key: str) -> Profile | None:
    """Return what was measured under this key at an earlier start, if it is there and readable."""
    try:
        return msgspec.json.decode(read_regular(_path(key)), type=Profile)
    except (OSError, msgspec.DecodeError):
        return None


def remember(key: str, profile: Profile) -> None:
    """Keep what was measured for the next start. Where it cannot be written, the next start measures again."""
    path = _path(key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{perf_counter()}")
        part.write_bytes(msgspec.json.encode(profile))
        part.rename(path)
    except OSError as error:
        logger.info("what was measured is not kept: %s", error)


def key_of(model_sha256: str, provider: str, workers: int, *settings: float) -> str:
    """Name what a measurement depends on: graph, provider and version, machine, worker threads, and what is set."""
    machine = (platform.machine(), _processor(), str(workers))
    parts = (_FORM, model_sha256, provider, ort.__version__, *machine, *map(str, settings))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _path(key: str) -> Path:
    return platformdirs.user_cache_path("zooserve") / "profiles" / f"{key}.json"


def _processor() -> str:
    """The processor's and the GPU's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor()
    try:
        import pynvml  # noqa: PLC0415 - only where there is a driver

        pynvml.nvmlInit()
        return f"{name} {pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(0))}"
    except Exception:  # no library or no driver: NVML's errors share no other base class
        return name
