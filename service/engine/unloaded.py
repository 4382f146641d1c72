"""Which models were loaded and unloaded by hand: the same for all server processes of a machine, as files in a folder.

The repository asks it. A process follows what another was told: it looks here again and again, and notes how far it is.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

_LOADED = "+"  # begins the names of files that say so: no model's name does
_PROCESSES = "=processes"  # a folder with a file for each, which says how far it is
_COARSE_NS = 1_000_000_000  # file systems may give two changes one time


class Unloaded:
    """A set of model names that are not to be served, and one of those that are, whatever the settings say.

    Args:
        folder: shared by the server processes; None: there is one process, and the sets are its own.
    """

    def __init__(self, folder: Path | None) -> None:
        self.shared = folder is not None
        self._folder = folder
        self._seen = 0  # when the folder had changed last, as it was looked at
        self._names: set[str] = set()
        self._asked: dict[str, int] = {}

    def __contains__(self, name: str) -> bool:
        return (self._folder / name).exists() if self._folder else name in self._names

    def add(self, name: str) -> int:
        """Note that a model is to be unloaded; return the moment."""
        if self._folder:
            (self._folder / f"{_LOADED}{name}").unlink(missing_ok=True)
        self._names.add(name)
        self._asked.pop(name, None)
        return self._note(name)

    def discard(self, name: str) -> None:
        """Note that a model is no longer to be unloaded."""
        if self._folder:
            (self._folder / name).unlink(missing_ok=True)
        self._names.discard(name)

    def ask_for(self, name: str) -> int:
        """Note that a model was loaded by its name, and is to be by every process; return the moment."""
        when = self._asked[name] = self._note(f"{_LOADED}{name}")
        return when

    def asked_for(self) -> dict[str, int]:
        """Which models were loaded by name, and when last."""
        if self._folder is None:
            return dict(self._asked)
        return {path.name.removeprefix(_LOADED): when for path, when in _noted(self._folder, f"{_LOADED}*")}

    def changed(self) -> bool:
        """Whether something was noted since this was asked last."""
        if self._folder is None:
            return False
        before, self._seen = self._seen, self._folder.stat().st_mtime_ns
        return self._seen != before or time.time_ns() - self._seen < _COARSE_NS

    def followed(self, since: int) -> None:
        """Note that this process has done what was noted before a moment."""
        if self._folder:
            (self._folder / _PROCESSES).mkdir(exist_ok=True)
            self._note(f"{_PROCESSES}/{os.getpid()}", since)

    def wait_for_others(self, seconds: float) -> bool:
        """Wait until every other process has done what was noted, or for so long; say whether all have."""
        now, end = time.time_ns(), time.monotonic() + seconds
        while self._folder and any(
            when < now and _is_other(path) for path, when in _noted(self._folder / _PROCESSES, "*")
        ):
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    def _note(self, name: str, when: int = 0) -> int:
        when = when or time.time_ns()
        if self._folder:
            path = self._folder / name
            part = path.with_name(f".{os.getpid()}.{time.monotonic_ns()}")
            part.write_text(str(when))
            part.replace(path)  # in one step, for those who read it
        return when


def _is_other(path: Path) -> bool:
    """Whether a file is that of another process that lives; that of one that ended is removed."""
    if not path.name.isdecimal() or int(path.name) == os.getpid():
        return False
    try:
        os.kill(int(path.name), 0)
    except ProcessLookupError:
        path.unlink(missing_ok=True)
        return False
    except OSError:  # a number that now is of another user's
        return False
    return True


def _noted(folder: Path, pattern: str) -> Iterator[tuple[Path, int]]:
    for path in folder.glob(pattern):
        try:
            yield path, int(path.read_text())
        except (OSError, ValueError):  # it was removed meanwhile, or the disk is full
            continue
