"""Threads that fetch images, also where some reads never end. `Scorer` has one set of them.

A thread cannot be stopped. One whose read takes too long is left to itself, and another takes its place, so that the
images behind it are read in time; the process does not wait for it at its end.
"""

import asyncio
import queue
import threading
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from math import inf
from time import monotonic

from scoring.fetch import UnreadableError, fetch
from scoring.storage import StorageError

_GRACE_S = 1.0  # for a time-out of the file system's own, which says more
_MOST_STUCK = 256  # reads that may be left to themselves at one time
_WATCH_S = 0.5  # how often the reads are looked at
Read = tuple[bytes, str]


@dataclass(slots=True, eq=False)
class _Task:
    """A read that waits or is under way: what it began at (`monotonic`), and whether its thread is left to itself."""

    address: str
    future: asyncio.Future[Read]
    began: float = inf
    stuck: bool = False


class Readers:
    """Reads images on threads of its own.

    Args:
        count: how many are read at once.
        limit: bytes of an image; larger ones are refused.
        timeout_s: seconds for one.
    """

    def __init__(self, count: int, limit: int, timeout_s: float) -> None:
        self._limit, self._timeout_s = limit, timeout_s
        self._work = queue.SimpleQueue[_Task]()
        self._lock = threading.Lock()
        self._open = set[_Task]()  # this and the next only on the event loop
        self._watched = False
        self._stuck = 0
        for _ in range(count):
            self._start()

    def read(self, address: str) -> asyncio.Future[Read]:
        """Begin to read an image. Only on the event loop.

        Returns:
            A future of its bytes, and their sha256 in hexadecimal. Its errors: `RequestError` (`too_large`);
            `UnreadableError`: it cannot be read, or not in time; `StorageError`: so many reads do not end that the
            storage must be at fault.
        """
        task = _Task(address, asyncio.get_running_loop().create_future())
        if self._stuck > _MOST_STUCK:
            task.future.set_exception(self._no_answer())
            return task.future
        if not self._watched:
            self._watch_later()
        self._open.add(task)
        self._work.put(task)
        return task.future

    def _start(self) -> None:
        threading.Thread(target=self._run, name="fetch", daemon=True).start()

    def _run(self) -> None:
        while self._next(self._work.get()):
            pass

    def _next(self, task: _Task) -> bool:
        """Read an image; say whether this thread goes on. A function, so that a waiting thread holds no image."""
        found: Read | Exception
        if task.future.done():
            return True  # cancelled: its run has ended
        task.began = monotonic()
        try:
            data = fetch(task.address, self._limit, self._timeout_s)
            found = data, sha256(data).hexdigest()
        except Exception as error:  # delivered to the one that waits
            found = error
        with self._lock:
            task.began = inf
            if task.stuck:
                self._stuck -= 1
                return False  # another thread has its place
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            task.future.get_loop().call_soon_threadsafe(self._settle, task, found)
        return True

    def _settle(self, task: _Task, found: Read | Exception) -> None:
        self._open.discard(task)
        if task.future.done():
            return  # cancelled
        if isinstance(found, Exception):
            task.future.set_exception(found)
        else:
            task.future.set_result(found)

    def _watch_later(self) -> None:
        # One timer for all reads: a timer for each, and `asyncio.wait_for`, took half of the event loop's time.
        self._watched = True
        asyncio.get_running_loop().call_later(min(_WATCH_S, self._timeout_s / 4), self._watch)

    def _watch(self) -> None:
        """Leave the reads that take too long to themselves; look again while there are others."""
        self._watched = False
        late = monotonic() - self._timeout_s - _GRACE_S
        for task in [task for task in self._open if task.began < late]:
            self._leave(task)
        if self._open:
            self._watch_later()

    def _leave(self, task: _Task) -> None:
        with self._lock:
            if task.began == inf:
                return  # it has ended just now
            task.stuck = True
            self._stuck += 1
            stuck = self._stuck
        if stuck > _MOST_STUCK:  # no thread takes its place, so those behind it would wait for ever
            for waiting in list(self._open):
                self._settle(waiting, self._no_answer())
            return
        self._settle(task, UnreadableError(f"no answer within {self._timeout_s:g} s"))
        self._start()

    def _no_answer(self) -> StorageError:
        return StorageError(
            f"{self._stuck} reads have begun and do not end: the storage does not answer. When it does, the same "
            "command continues."
        )
