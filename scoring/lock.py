"""Lets one command at a time write a folder of results; `scoring.run` holds the lock.

A local folder has a lock of the operating system, which ends with its process. An object store has none, and pyarrow no
write that fails if an object exists. So there a command writes an object of its own below `_locks/`, with a new content
every few seconds, and goes on only if no other one is there. One whose content does not change any more is of a process
that has died; nobody's clock is compared with another's. The process may have been stopped only, or without a network:
when it goes on and its object is gone, it writes no plan and no manifest any more, and ends.
"""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from time import monotonic, sleep
from uuid import uuid4

from filelock import FileLock, Timeout

from scoring.storage import Folder, StorageError
from zoo.errors import refused_by_system

FOLDER = "_locks"
_HEARTBEAT_S, _DEAD_S = 5.0, 25.0  # how often a lock is written anew; after how long without that its holder is dead


@contextmanager
def locked(out: Folder) -> Iterator[Callable[[], None]]:
    """Lock a folder of results until the block ends. `out` refuses to write when the lock was lost.

    Where a process died that had locked an object store, this waits until that is certain: 25 seconds.

    Yields:
        What raises StorageError when the lock was lost, as far as is known: it does not ask the store.

    Raises:
        StorageError: another process writes it, or it cannot be written.
    """
    if out.local:
        lock = FileLock(Path(out.address) / "_lock", timeout=0)
        try:
            Path(out.address).mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            raise StorageError(f"{out.address} is being written by another process") from None
        except OSError as error:
            raise StorageError(f"{refused_by_system(error)}. Name another folder for the results.") from error
        try:
            yield lambda: None
        finally:
            lock.release()
        return
    _wait_for_the_dead(out)
    name, ended, lost = f"{FOLDER}/{uuid4().hex}", threading.Event(), threading.Event()

    def known() -> None:
        if lost.is_set():
            raise StorageError(
                f"{out.address}: this process did not answer for {_DEAD_S:g} s, and another one has taken its lock. "
                "When that one has ended, the same command continues."
            )

    def allowed() -> None:
        if name not in _locks(out):
            lost.set()
        known()

    _write(out, name, 0)
    try:
        # Written before it is looked: of two that begin at once, at least one sees the other.
        if others := [other for other in _locks(out) if other != name]:
            raise StorageError(f"{out.address}: another process began at the same time ({_holder(out, others[0])})")
        out.allowed = allowed
        threading.Thread(target=_heartbeat, args=(out, name, ended, lost), name="lock", daemon=True).start()
        yield known
    finally:
        ended.set()
        out.allowed = lambda: None
        with suppress(Exception):  # else it counts as one of a dead process
            out.remove(name)


def _wait_for_the_dead(out: Folder) -> None:
    """Return when there is no lock; remove those of dead processes.

    Raises:
        StorageError: one is of a living process.
    """
    end, first = monotonic() + _DEAD_S, {name: _holder(out, name) for name in _locks(out)}
    while first and monotonic() < end:
        sleep(_HEARTBEAT_S / 5)
        for name, before in list(first.items()):
            now = _holder(out, name)
            if not now:
                del first[name]
            elif now != before:
                raise StorageError(f"{out.address} is being written by another process ({now})")
    for name in first:
        with suppress(Exception):  # another command has removed it
            out.remove(name)


def _locks(out: Folder) -> list[str]:
    return [f"{FOLDER}/{name}" for name in out.names(FOLDER)]


def _holder(out: Folder, name: str) -> str:
    """Return what a lock says of its process; empty where it is gone."""
    try:
        with out.open(name) as file:
            content: bytes = file.read()
    except Exception:  # a library's own, where it is written or removed meanwhile
        return ""
    return content.decode(errors="replace")


def _write(out: Folder, name: str, number: int) -> None:
    with out.writing(name) as file:
        file.write(f"{socket.gethostname()}, process {os.getpid()}, heartbeat {number}".encode())


def _heartbeat(out: Folder, name: str, ended: threading.Event, lost: threading.Event) -> None:
    for number in count(1):
        if ended.wait(_HEARTBEAT_S):
            return
        with suppress(Exception):  # a store that does not answer now, whatever its library says, may do so next time
            _write(out, name, number)
        if lost.is_set():
            return
        if ended.is_set():  # it was removed while it was written
            with suppress(Exception):
                out.remove(name)
