"""Runs code with the real onnxruntime-gpu on simulated GPUs. `conftest.py` makes a fixture of it; see README.md.

The libraries are built by gcc once per test run. The package, some 256 MB, is fetched once per machine, into the cache:
it cannot be installed beside onnxruntime, so it lies in a folder of its own that a process may put first on its path.
"""

import os
import pickle
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from requirements.install import requirements
from zoo.sources.cache import Cache

ROOT = Path(__file__).parents[4]
BUILD = Path(__file__).parent / "build"
PACKAGE = "onnxruntime-gpu"
LONGEST_S = 120.0  # that a process may take
T = TypeVar("T")


class UnavailableError(Exception):
    """What is missing for the stub on this machine."""


class CrashError(Exception):
    """A process on the stub ended without an answer, with what it wrote."""


@dataclass(frozen=True)
class Stub:
    """The stub libraries and the package that calls them.

    Attributes:
        libraries: the folder of the libraries.
        packages: a folder with onnxruntime-gpu.
    """

    libraries: Path
    packages: Path

    def environment(self, **settings: object) -> dict[str, str]:
        """Return the environment of a process on the stub; `gpus=2` is the variable STUB_GPUS (see README.md)."""
        return os.environ | {
            "LD_LIBRARY_PATH": str(self.libraries),
            "PYTHONPATH": os.pathsep.join((str(self.packages), str(ROOT), str(ROOT / "client"))),
            **{f"STUB_{name.upper()}": str(value) for name, value in settings.items()},
        }

    def call(self, function: Callable[..., T], *arguments: object, **settings: object) -> T:
        """Call a function of a module in a process on the stub.

        Args:
            function: found again by its name, so it is no lambda; what it takes and returns can be pickled.
            arguments: of the function.
            settings: of the stub, see README.md.

        Raises:
            Exception: what the function raised; what the process wrote is its note.
            CrashError: the process ended otherwise.
        """
        with tempfile.TemporaryDirectory() as folder:
            answer = Path(folder) / "answer"
            process = subprocess.run(
                [sys.executable, "-m", "tests.service.engine.cuda_stub.child", str(answer)],
                input=pickle.dumps((function, arguments)),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=self.environment(**settings),
                cwd=ROOT,
                timeout=LONGEST_S,
                check=False,
            )
            written = process.stdout.decode(errors="replace")[-20_000:]
            if not answer.exists():
                raise CrashError(f"the process ended with {process.returncode}:\n{written}")
            result, error = pickle.loads(answer.read_bytes())
        if error is not None:
            error.add_note(written)
            raise error
        return result


def build(folder: Path) -> Path:
    """Build the libraries into a folder, and return it.

    Raises:
        UnavailableError: there is no gcc.
    """
    if not shutil.which("gcc"):
        raise UnavailableError("gcc is needed to build the CUDA stub (apt-get install gcc libc6-dev)")
    subprocess.run([BUILD, folder], check=True)
    return folder


def packages(show: Callable[[str], None]) -> Path:
    """Return a folder with the onnxruntime-gpu that `requirements/serve-gpu.txt` names; fetch it if it is not there.

    Args:
        show: is told what is fetched, before it is.

    Raises:
        UnavailableError: there is none for this machine, or it could not be fetched.
    """
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise UnavailableError(f"the CUDA stub is for Linux on x86_64, not for {sys.platform} on {platform.machine()}")
    locked = requirements((ROOT / "requirements" / "serve-gpu.txt").read_text(encoding="utf-8"))[PACKAGE]
    version = locked[0].split("==")[1].split()[0]
    folder = Cache().root / "cuda-stub" / f"{PACKAGE}-{version}-{sys.implementation.cache_tag}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            show(f"fetching {PACKAGE} {version}, about 256 MB, once into {folder}")
            with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
                _install(locked, Path(temporary) / "packages")
                (Path(temporary) / "packages").rename(folder)
    return folder


def _install(locked: list[str], folder: Path) -> None:
    lock = folder.with_name("lock.txt")
    lock.write_text("\n".join(locked))
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-deps", "--target", folder]
    done = subprocess.run(
        [*command, "--requirement", lock], stdout=None, stderr=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UnavailableError(f"{PACKAGE} could not be fetched: {reason}")
