"""Install what locks name, and say how far it is: `python requirements/install.py serve-cpu export`.

Needs nothing but pip, since it runs before anything is installed. Every file is checked against the hashes of its lock.
Torch is the exception where its publisher's index of CPU builds is used: PyPI's for Linux bring CUDA's libraries,
several gigabytes that a machine without an NVIDIA GPU never loads. That index is used where `--cpu` says that there is
no GPU, the user has named no index of their own, and it answers within a few seconds. It publishes no hashes to lock.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path

HERE = Path(__file__).parent
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PATIENCE_S = 4.0  # that the index of CPU builds has to answer
_OF_CPU_INDEX = ("torch", "torchvision")
_ONLY_FOR_CUDA = re.compile(r"nvidia-(?!ml-py$).*|cuda-.*|triton")
_PIN = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?==(?P<version>[^ ;\\]+)")
_FETCHED = re.compile(r"\s*(?:Downloading|Using cached) (?P<file>\S+?)(?: \((?P<size>[^)]+)\))?\s*$")
_INDEX_SETTINGS = ("index-url", "extra-index-url", "no-index")


def requirements(text: str) -> dict[str, list[str]]:
    """Read a lock. Returns its requirements with their hashes, by the package's name; one has several by Python."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if _PIN.match(line):
            lines = found.setdefault(_PIN.match(line)["name"], [])  # type: ignore[index]
            lines.append(line)
        elif line.startswith("    --hash") and lines:
            lines[-1] += f"\n{line}"
    return found


def without_cuda(locked: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Leave out of a lock what comes from the index of CPU builds, and CUDA's libraries."""
    return {
        name: lines
        for name, lines in locked.items()
        if name not in _OF_CPU_INDEX and not _ONLY_FOR_CUDA.fullmatch(name)
    }


def own_index() -> str:
    """Name the setting by which the user has chosen an index; empty where none is set."""
    for setting in _INDEX_SETTINGS:
        if os.environ.get(name := "PIP_" + setting.upper().replace("-", "_")):
            return name
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    found = re.search(rf"^(\S+\.(?:{'|'.join(_INDEX_SETTINGS)}))=", listed, re.MULTILINE)
    return found[1] if found else ""


def cpu_index(index: str, patience: float = PATIENCE_S) -> bool:
    """Whether an index of torch's CPU builds answers in time."""
    try:
        with urllib.request.urlopen(f"{index.rstrip('/')}/torch/", timeout=patience) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False


def pip(arguments: Iterable[str], total: int) -> None:
    """Run pip, and say of each file that it fetches which one of about `total` it is; exits with pip's own status."""
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar=off", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # noqa: S603 - pip
    said: list[str] = []
    fetched = 0
    for line in process.stdout or ():
        said.append(line)
        if (found := _FETCHED.match(line)) and not found["file"].endswith(".metadata"):
            fetched += 1
            progress(f"  {fetched} of {total}: {found['file'].partition('-')[0]}", found["size"] or "")
        elif line.startswith("Installing collected packages"):
            progress(f"  installing {line.count(',') + 1} packages", "")
    if process.wait():
        sys.exit(f"{''.join(said[-30:])}\npip failed: {' '.join(command[1:4])} ... ended with {process.returncode}")


def progress(what: str, size: str) -> None:
    """Say what is fetched: in one line of a terminal, else a line for each file of at least a megabyte."""
    if sys.stdout.isatty():
        sys.stdout.write(f"\r\033[K{what}, {size}" if size else f"\r\033[K{what}\n")
        sys.stdout.flush()
    elif not size or size.endswith(("MB", "GB")):
        say(f"{what}, {size}" if size else what)


def say(line: str) -> None:
    """Print one line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: list[str] | None = None) -> None:
    """Install the locks that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("locks", nargs="+", metavar="LOCK", help="a file of this folder without its .txt: serve-cpu")
    parser.add_argument("--cpu", action="store_true", help="there is no GPU: CPU builds of torch will do")
    parser.add_argument("--cpu-index", default=CPU_INDEX, help="of torch's CPU builds  [default: %(default)s]")
    parser.add_argument("--no-deps", action="store_true", help="install nothing that the lock does not name")
    parser.add_argument("--pip", default="[]", help="more arguments for pip, as JSON: '[\"--no-compile\"]'")
    asked = parser.parse_args(arguments)
    more = [*json.loads(asked.pip), *(["--no-deps"] if asked.no_deps else [])]
    locked: dict[str, list[str]] = {}
    for name in asked.locks:
        for package, lines in requirements((HERE / f"{name}.txt").read_text(encoding="utf-8")).items():
            locked[package] = list(dict.fromkeys([*locked.get(package, []), *lines]))
    if "torch" in locked and asked.cpu and sys.platform == "linux":
        if setting := own_index():
            say(f"torch comes from your index ({setting}), with CUDA's libraries if that is what it has")
        elif cpu_index(asked.cpu_index):
            say("torch comes as its CPU build, from its publisher's index")
            versions = [f"{name}=={_PIN.match(locked[name][0])['version']}" for name in _OF_CPU_INDEX if name in locked]  # type: ignore[index]
            pip([*more, "--no-deps", "--index-url", asked.cpu_index, *versions], len(versions))
            locked = without_cuda(locked)
        else:
            say(f"{asked.cpu_index} does not answer: torch comes from PyPI, with several GB of CUDA's libraries")
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "requirements.txt"
        wanted.write_text("\n".join(line for lines in locked.values() for line in lines) + "\n", encoding="utf-8")
        pip([*more, "--require-hashes", "--requirement", str(wanted)], len(locked))


if __name__ == "__main__":
    main()
