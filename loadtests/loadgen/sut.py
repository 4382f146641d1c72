"""The system under test as LoadGen sees it: queries come in, `QuerySamplesComplete` is called for each.

LoadGen calls `issue` from its own thread and must have it back at once. So queries are written to the senders' pipes,
and a thread here reads from one pipe, which all senders share, what became of them.
"""

import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import IO

import numpy as np

from loadtests.loadgen.library import loadgen
from loadtests.loadgen.moment import moment
from loadtests.loadgen.wire import READY, Plan, Reader, Records, records
from loadtests.transport import ABANDONED

_GRACE = 5.0  # seconds that a sender gets to end


class SenderError(Exception):
    """A sender that could not start, or ended; what it had to say is on the standard error."""


class SystemUnderTest:
    """Sender processes behind LoadGen's interface. A context manager: leaving it ends them.

    Attributes:
        outcomes: how many queries ended in which way (`transport`), since `start_counting`.
        late: how late each was sent, in microseconds; so are the others. It counts from LoadGen's call.
        problem: why queries are no longer sent; empty while all is well.
    """

    def __init__(self, plan: Plan, senders: int) -> None:
        """Start the senders.

        Args:
            plan: the same for each; its connections are those of one sender.
            senders: how many processes.
        """
        self._lg = loadgen()
        self.outcomes: Counter[int] = Counter()
        self.late: list[int] = []
        self.problem = ""
        self._answers = plan.answers
        if self._answers:
            Path(self._answers).touch()
        self._ready = 0
        self._issued = 0
        self._under_way: set[int] = set()
        self._lock = threading.Lock()
        self._pipe, write_end = os.pipe()
        try:
            self._senders = [_start(plan, write_end) for _ in range(senders)]
        finally:
            os.close(write_end)
        self._reader = threading.Thread(target=self._read, name="outcomes", daemon=True)
        self._reader.start()
        self.handle = self._lg.ConstructFastSUT(self.issue, _flush)

    def __enter__(self) -> "SystemUnderTest":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sender in self._senders:
            with suppress(OSError):
                _stdin(sender).close()  # that is how a sender knows
        for sender in self._senders:
            try:
                sender.wait(_GRACE)
            except subprocess.TimeoutExpired:
                sender.kill()
                sender.wait()
        self._reader.join()
        self._lg.DestroyFastSUT(self.handle)

    def wait(self, seconds: float) -> None:
        """Wait until every sender knows the right answers and has its connections.

        Raises:
            SenderError: one ended, or was not ready in time.
        """
        end = monotonic() + seconds
        while self._ready < len(self._senders):
            self.check()
            if self.problem or monotonic() > end:
                raise SenderError(self.problem or f"the senders were not ready within {seconds:g} s")
            sleep(0.02)

    def check(self) -> None:
        """Give up where a sender has ended: LoadGen would wait for its queries for ever."""
        codes = [sender.poll() for sender in self._senders]
        if any(code is not None for code in codes) and not self.problem:
            self.abandon(f"a sender ended (exit codes {codes})")

    def abandon(self, problem: str) -> None:
        """Complete all queries that are under way, and from now on each one at once, as never sent."""
        self.problem = problem
        with self._lock:
            left = list(self._under_way)
        self._complete(left, [ABANDONED] * len(left))

    def start_counting(self) -> None:
        """Forget the outcomes so far."""
        self.outcomes = Counter()
        self.late = []

    def issue(self, ids: Sequence[int], images: Sequence[int]) -> None:
        """Take queries from LoadGen and deal them out to the senders in turn. Never raises: LoadGen would abort."""
        now = moment()
        with self._lock:
            self._under_way.update(ids)
        count = len(self._senders)
        for first in range(min(count, len(ids))):
            sender = self._senders[(self._issued + first) % count]
            try:
                _write(_stdin(sender).fileno(), records(ids[first::count], images[first::count], now))
            except (OSError, ValueError):
                self.abandon("a sender takes no more queries")
        self._issued += len(ids)
        if self.problem:
            self.abandon(self.problem)

    def _read(self) -> None:
        """Read what became of queries, until every sender has ended."""
        with ExitStack() as stack:
            pipe = stack.enter_context(os.fdopen(self._pipe, "rb", buffering=0))
            bodies = stack.enter_context(Path(self._answers).open("rb")) if self._answers else None
            reader = Reader(lambda done: self._take(done, bodies))
            while data := pipe.read(1 << 16):
                reader.feed(data)

    def _take(self, done: Records, bodies: IO[bytes] | None) -> None:
        ready = done["id"] == READY
        self._ready += int(ready.sum())
        done = done[~ready]
        ids, outcomes, extra = (done[name].tolist() for name in ("id", "value", "extra"))
        if bodies is None:
            self.late += extra
            self._complete(ids, outcomes)
        else:
            self._complete(ids, outcomes, [bodies.read(size) for size in extra])

    def _complete(self, ids: Sequence[int], outcomes: Sequence[int], bodies: Sequence[bytes] | None = None) -> None:
        with self._lock:  # one that was abandoned may be answered yet
            done = {query: outcome for query, outcome in zip(ids, outcomes, strict=True) if query in self._under_way}
            self._under_way.difference_update(done)
            self.outcomes.update(done.values())
        response = self._lg.QuerySampleResponse
        if done and bodies is None:
            self._lg.QuerySamplesComplete([response(query, 0, 0) for query in done])
        elif done:
            arrays = {query: np.array(bytearray(body), np.uint8) for query, body in zip(ids, bodies or (), strict=True)}
            # LoadGen copies what it logs while it is called.
            self._lg.QuerySamplesComplete(
                [response(query, arrays[query].ctypes.data, arrays[query].size) for query in done]
            )


def _start(plan: Plan, outcomes: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "loadtests.loadgen.sender"]
    sender = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=outcomes, bufsize=0)  # noqa: S603 - ourselves
    encoded = plan.encode()
    with suppress(OSError):  # it ended: `check` says so
        _write(_stdin(sender).fileno(), len(encoded).to_bytes(8, "little") + encoded)
    return sender


def _stdin(sender: "subprocess.Popen[bytes]") -> IO[bytes]:
    assert sender.stdin is not None  # noqa: S101 - `_start` asked for a pipe
    return sender.stdin


def _write(pipe: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(pipe, view) :]


def _flush() -> None:
    """LoadGen says that no more queries come; senders hold none back."""
