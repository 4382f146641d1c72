"""Measured profiles, kept in the user's cache folder so that the next start on the same machine is quick."""

import hashlib
import logging
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from time import perf_counter

import msgspec
import onnxruntime as ort
import platformdirs
from filelock import FileLock

from service.engine.profile import Profile
from zoo.files import read_regular

logger = logging.getLogger(__name__)
_PATIENCE_S = 300.0
_FORM = "3"  # of a profile; one of another form is measured again


def recall_or(measured: Callable[[], Profile], key: str, *, one_by_one: bool = False) -> Profile:
    """Return what was measured under this key at an earlier start; measure now where it was not, and keep it.

    Args:
        measured: measures.
        key: see `key_of`.
        one_by_one: let processes measure one after the other, since they would disturb each other; the second finds
            what the first measured. One that takes too long is not waited for.
    """
    path = platformdirs.user_cache_path("zooserve") / "profiles" / f"{key}.json"
    with _turn(path.parent) if one_by_one else nullcontext():
        profile = _read(path)
        if profile is None:
            profile = measured()
            _write(path, profile)
        return profile


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Wait for the other processes that measure, for as long as `_PATIENCE_S`."""
    lock = FileLock(folder / ".measuring", timeout=_PATIENCE_S)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:  # also a timeout
        logger.info("measuring without waiting for other processes: %s", error)
    try:
        yield
    finally:
        lock.release()


def _read(path: Path) -> Profile | None:
    try:
        return msgspec.json.decode(read_regular(path), type=Profile)
    except (OSError, msgspec.DecodeError):
        return None


def _write(path: Path, profile: Profile) -> None:
    """Keep a profile. Where that cannot be, the next start measures again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{perf_counter()}")
        part.write_bytes(msgspec.json.encode(profile))
        part.rename(path)
    except OSError as error:
        logger.info("what was measured is not kept: %s", error)


def key_of(model_sha256: str, provider: str, *settings: float) -> str:
    """Name what a measurement depends on: graph, provider, versions, machine, and what is set."""
    machine = (platform.machine(), _processor())
    parts = (_FORM, model_sha256, provider, ort.__version__, *machine, *map(str, settings))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


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
        gpu = pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(0))
        return f"{name} {gpu} {pynvml.nvmlSystemGetDriverVersion()}"
    except Exception:  # no library or no driver: NVML's errors share no other base class
        return name
