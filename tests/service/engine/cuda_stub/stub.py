"""Runs code with the real onnxruntime-gpu on simulated GPUs. `conftest.py` makes a fixture of it; see README.md.

The libraries are built by gcc once per test run. The package cannot be installed beside onnxruntime, so it lies apart.
"""

import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from requirements.install import requirements
from tests.service.engine import apart
from tests.service.engine.apart import ROOT, UnavailableError

BUILD = Path(__file__).parent / "build"
PACKAGE = "onnxruntime-gpu"
T = TypeVar("T")


@dataclass(frozen=True)
class Stub:
    """The stub libraries and the package that calls them.

    Attributes:
        libraries: the folder of the libraries.
        packages: a folder with onnxruntime-gpu.
    """

    libraries: Path
    packages: Path

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
        stub = {f"STUB_{name.upper()}": str(value) for name, value in settings.items()}
        return apart.call(self.packages, {"LD_LIBRARY_PATH": str(self.libraries)} | stub, function, *arguments)


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
    return apart.fetch(PACKAGE, version, "256 MB", locked, show)
