"""Packages and processes apart from the tests' own: what cannot be installed beside it, or would change all tests.

A package is fetched once per machine, into the cache, where it lies in a folder of its own that a process may put first
on its path. A process is started for one call (`python -m tests.service.engine.apart ANSWER`).
"""

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from zoo.sources.cache import Cache

ROOT = Path(__file__).parents[3]
LONGEST_S = 120.0  # that a process may take
T = TypeVar("T")


class UnavailableError(Exception):
    """What is missing on this machine."""


class CrashError(Exception):
    """A process ended without an answer, with what it wrote."""


def fetch(package: str, version: str, size: str, locked: Sequence[str], show: Callable[[str], None]) -> Path:
    """Return a folder with a package; fetch it if it is not there.

    Args:
        package: its name.
        version: of it.
        size: of the download, for people.
        locked: the lines of a requirements file that name it.
        show: is told what is fetched, before it is.

    Raises:
        UnavailableError: it could not be fetched.
    """
    folder = Cache().root / "test-packages" / f"{package}-{version}-{sys.implementation.cache_tag}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            show(f"fetching {package} {version}, about {size}, once into {folder}")
            with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
                _install(package, locked, Path(temporary) / "packages")
                (Path(temporary) / "packages").rename(folder)
    return folder


def call(packages: Path, environment: Mapping[str, str], function: Callable[..., T], *arguments: object) -> T:
    """Call a function of a module in a process of its own.

    Args:
        packages: a folder that is first on its path.
        environment: further variables.
        function: found again by its name, so it is no lambda; what it takes and returns can be pickled.
        arguments: of the function.

    Raises:
        Exception: what the function raised; what the process wrote is its note.
        CrashError: the process ended otherwise.
    """
    path = os.pathsep.join((str(packages), str(ROOT), str(ROOT / "client")))
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer"
        process = subprocess.run(
            [sys.executable, "-m", __name__, str(answer)],
            input=pickle.dumps((function, arguments)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": path} | environment,
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


def _install(package: str, locked: Sequence[str], folder: Path) -> None:
    lock = folder.with_name("lock.txt")
    lock.write_text("\n".join(locked))
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-deps", "--target", folder]
    done = subprocess.run(
        [*command, "--requirement", lock], stdout=None, stderr=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UnavailableError(f"{package} could not be fetched: {reason}")


def main(answer: Path) -> None:
    """Call the function on the standard input, and leave what it returned or raised in a file."""
    function, arguments = pickle.load(sys.stdin.buffer)
    result, error = None, None
    try:
        result = function(*arguments)
    except Exception as raised:
        error = raised
    answer.write_bytes(pickle.dumps((result, error)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
