"""Shares among the server processes which models were loaded and unloaded by hand, and which they serve.

An administrator's request reaches one process, which writes the change to a shared file. The repositories of the others
read the file twice a second, make the same change, and record in the file that they have.
"""

import logging
import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

logger = logging.getLogger(__name__)


class _Notes(msgspec.Struct):
    """The content of the file.

    Attributes:
        changes: the number of changes so far.
        unloaded, loaded: models that were unloaded or loaded by hand, by name, with the number of that change.
        followed: by process id, the number of the last change that the process has made, too.
        started: whether any process has loaded all its models.
        served: models that any process has answered with, or has to.
    """

    changes: int = 0
    unloaded: dict[str, int] = {}
    loaded: dict[str, int] = {}
    followed: dict[int, int] = {}
    started: bool = False
    served: list[str] = []


class Unloaded:
    """The models that were unloaded or loaded by hand, which overrides the settings.

    Args:
        path: of the file that the server processes share, best an anonymous one, which nothing can remove. None: there
            is one process.
    """

    def __init__(self, path: Path | None) -> None:
        self.shared = path is not None
        self._path = path
        self._own = _Notes()
        self._seen = 0  # number of changes when the file was last read
        self._own_served: set[str] = set()  # what this process has recorded

    def __contains__(self, name: str) -> bool:
        return name in self._read().unloaded

    def add(self, name: str) -> None:
        """Record that a model must be unloaded."""
        with self._change() as notes:
            notes.loaded.pop(name, None)
            notes.unloaded[name] = notes.changes

    def discard(self, name: str) -> None:
        """Record that a model need not be unloaded any more."""
        if name in self:
            with self._change() as notes:
                notes.unloaded.pop(name, None)

    def ask_for(self, name: str) -> int:
        """Record that every process must load a model, which was loaded by name. Returns the change's number."""
        with self._change() as notes:
            notes.loaded[name] = notes.changes
        return notes.changes

    def asked_for(self) -> dict[str, int]:
        """Return the models that were loaded by name, each with the number of its last such change."""
        return self._read().loaded

    def changed(self) -> bool:
        """Return whether there were changes since the last call."""
        before, self._seen = self._seen, self._read().changes
        return self.shared and self._seen != before

    def followed(self) -> None:
        """Record that this process has made the changes that `changed` has seen."""
        with self._write() as notes:
            notes.followed[os.getpid()] = self._seen

    def wait_for_others(self, seconds: float) -> bool:
        """Wait at most `seconds` until all other processes have made all changes: a client may reach any of them.

        Returns:
            Whether they have; if not, that is logged.
        """
        changes, end = self._read().changes, time.monotonic() + seconds
        while self.shared and any(
            done < changes and number != os.getpid() and _lives(number)
            for number, done in self._read().followed.items()
        ):
            if time.monotonic() > end:
                logger.warning("another server process has not followed within %g s", seconds)
                return False
            time.sleep(0.02)
        return True

    @property
    def started(self) -> bool:
        """Whether any process has loaded all its models."""
        return self._read().started

    def note_started(self) -> None:
        """Record that this process has loaded all its models, for processes that replace it."""
        with self._write() as notes:
            notes.started = True

    def note_served(self, names: Collection[str]) -> None:
        """Record which models this process answers with, or is not ready without."""
        if not self._own_served.issuperset(names):
            self._own_served.update(names)
            with self._write() as notes:
                notes.served = sorted({*notes.served, *names})

    def awaits(self, name: str) -> bool:
        """Whether a process that starts is not ready before a model is: if it replaces one, as that was.

        Else a bad model that was added to a running server would make a process unready that replaces another.
        """
        served = self._read().served
        return not served or name in served

    @contextmanager
    def _change(self) -> Iterator[_Notes]:
        """Write a change with its number."""
        with self._write() as notes:
            notes.changes += 1
            yield notes

    @contextmanager
    def _write(self) -> Iterator[_Notes]:
        """Change the file's content under its lock."""
        if self._path is None:
            yield self._own
            return
        with _locked(self._path) as file:
            before = os.pread(file, os.fstat(file).st_size, 0)
            notes = _decoded(before)
            notes.followed = {number: done for number, done in notes.followed.items() if _lives(number)}
            yield notes
            # Overwrite all of it in one call: the process may be killed at any time.
            os.pwrite(file, msgspec.json.encode(notes).ljust(len(before)), 0)

    def _read(self) -> _Notes:
        if self._path is None:
            return self._own
        with _locked(self._path) as file:
            return _decoded(os.pread(file, os.fstat(file).st_size, 0))


def _decoded(text: bytes) -> _Notes:
    return msgspec.json.decode(text, type=_Notes) if text else _Notes()


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Open a file under an exclusive lock, and create it if it does not exist."""
    import fcntl  # noqa: PLC0415 - POSIX only

    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
    finally:
        os.close(file)


def _lives(number: int) -> bool:
    """Return whether a process with this id exists."""
    try:
        os.kill(number, 0)
    except OSError:  # there is none, or it is another user's
        return False
    return True
