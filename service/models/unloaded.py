"""What the server processes of a machine share: which models were loaded and unloaded by hand.

An administrator's request reaches one process, which writes the change to a shared file. The repositories of the others
look at the file twice a second, do the same, and write that they have.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec


class _Notes(msgspec.Struct):
    """What is in the file.

    Attributes:
        changes: how many there were.
        unloaded, loaded: models that were unloaded or loaded by hand, by name, with the number of that change.
        followed: by process id, up to which change the process has followed.
        started: whether a process has loaded all its models.
    """

    changes: int = 0
    unloaded: dict[str, int] = {}
    loaded: dict[str, int] = {}
    followed: dict[int, int] = {}
    started: bool = False


class Unloaded:
    """A set of model names that are not to be served, and one of those that are, whatever the settings say.

    Args:
        path: of the file that the server processes share; one without a name is best, as nothing can remove it. None:
            there is one process, and nothing is shared.
    """

    def __init__(self, path: Path | None) -> None:
        self.shared = path is not None
        self._path = path
        self._own = _Notes()
        self._seen = 0  # changes, when it was looked at last

    def __contains__(self, name: str) -> bool:
        return name in self._read().unloaded

    def add(self, name: str) -> None:
        """Note that a model is to be unloaded."""
        with self._change() as notes:
            notes.loaded.pop(name, None)
            notes.unloaded[name] = notes.changes

    def discard(self, name: str) -> None:
        """Note that a model is no longer to be unloaded."""
        if name in self:
            with self._change() as notes:
                notes.unloaded.pop(name, None)

    def ask_for(self, name: str) -> int:
        """Note that a model was loaded by its name, and is to be by every process; return the number of this change."""
        with self._change() as notes:
            notes.loaded[name] = notes.changes
        return notes.changes

    def asked_for(self) -> dict[str, int]:
        """Which models were loaded by name, each with the number of the last change of that kind."""
        return self._read().loaded

    def changed(self) -> bool:
        """Whether something was noted since this was asked last."""
        before, self._seen = self._seen, self._read().changes
        return self.shared and self._seen != before

    def followed(self) -> None:
        """Note that this process has done what was noted when `changed` was asked."""
        with self._write() as notes:
            notes.followed[os.getpid()] = self._seen

    def wait_for_others(self, seconds: float) -> bool:
        """Wait until every other process has done what is noted now, or for so long; say whether all have."""
        changes, end = self._read().changes, time.monotonic() + seconds
        while self.shared and any(
            done < changes and _is_other(number) for number, done in self._read().followed.items()
        ):
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    @property
    def started(self) -> bool:
        """Whether any process has loaded all its models."""
        return self._read().started

    def note_started(self) -> None:
        """Note that this process has loaded all its models, for those that take its place."""
        with self._write() as notes:
            notes.started = True

    @contextmanager
    def _change(self) -> Iterator[_Notes]:
        """Change what is noted by hand, with the number that the change has."""
        with self._write() as notes:
            notes.changes += 1
            yield notes

    @contextmanager
    def _write(self) -> Iterator[_Notes]:
        """Change something while no other process does."""
        if self._path is None:
            yield self._own
            return
        with _locked(self._path) as file:
            before = os.pread(file, os.fstat(file).st_size, 0)
            notes = _decoded(before)
            notes.followed = {number: done for number, done in notes.followed.items() if _lives(number)}
            yield notes
            # Over all of it, at once: a process may be killed at any time.
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
    """Open a file, made where it is not there, that no other process has open in this way."""
    import fcntl  # noqa: PLC0415 - there is none elsewhere than on POSIX

    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
    finally:
        os.close(file)


def _is_other(number: int) -> bool:
    return number != os.getpid() and _lives(number)


def _lives(number: int) -> bool:
    """Whether there is a process of this number."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:  # now it is another user's
        return False
    return True
