"""Threads that fetch images, also where some reads never end. `Scorer` has one set of them.

A thread cannot be stopped. One whose read takes too long is left to itself, and another takes its place, so that the
images behind it are read in time; the process does not wait for it at its end.
"""

import asyncio
import queue
import threading
from concurrent.futures import Future
from hashlib import sha256

from scoring.storage import StorageError, UnreadableError, fetch

_GRACE_S = 1.0  # for a time-out of the file system's own, which says more
_MOST_STUCK = 256  # reads that may be left to themselves at one time
Read = tuple[bytes, str]


class Readers:
    """Reads images on threads of its own.

    Args:
        count: how many are read at once.
        limit: bytes of an image; larger ones are refused.
        timeout_s: seconds for one.
    """

    def __init__(self, count: int, limit: int, timeout_s: float) -> None:
        self._limit, self._timeout_s = limit, timeout_s
        self._free = asyncio.Semaphore(count)
        self._work = queue.SimpleQueue[tuple[str, Future[Read]]]()
        self._lock = threading.Lock()
        self._stuck = set[Future[Read]]()
        for _ in range(count):
            self._start()

    async def read(self, address: str) -> Read:
        """Return an image's bytes, and their sha256.

        Raises:
            RequestError: `too_large`.
            UnreadableError: it cannot be read, or not in time.
            StorageError: so many reads do not end that the storage must be at fault.
        """
        async with self._free:
            future = Future[Read]()
            self._work.put((address, future))
            try:
                return await asyncio.wait_for(asyncio.wrap_future(future), self._timeout_s + _GRACE_S)
            except TimeoutError:
                self._leave(future)
                raise UnreadableError(f"no answer within {self._timeout_s:g} s") from None

    def _start(self) -> None:
        threading.Thread(target=self._run, name="fetch", daemon=True).start()

    def _run(self) -> None:
        while True:
            address, future = self._work.get()
            if not future.set_running_or_notify_cancel():
                continue  # its run has ended
            try:
                data = fetch(address, self._limit, self._timeout_s)
                future.set_result((data, sha256(data).hexdigest()))
                del data
            except Exception as error:  # delivered to the one that waits
                future.set_exception(error)
            with self._lock:
                if future in self._stuck:
                    self._stuck.remove(future)
                    return  # another thread has its place
            del future  # and with it the image, while this thread waits

    def _leave(self, future: Future[Read]) -> None:
        with self._lock:
            if future.done():
                return
            self._stuck.add(future)
            if len(self._stuck) > _MOST_STUCK:
                raise StorageError(
                    f"{len(self._stuck)} reads have begun and do not end: the storage does not answer. When it does, "
                    "the same command continues."
                )
        self._start()
