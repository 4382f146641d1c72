"""Timers of an event loop for what is nearly always over before its time: to set and to cancel them costs little.

uvloop makes a timer of libuv for each `call_later`. To cancel one closes it in the next iteration, for which the
interpreter's lock is given up and taken again, and other threads take it meanwhile.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from math import inf


class Alarm:
    """Calls a function once, unless it is cleared before. It can be set again and again.

    The loop's timer goes on when the alarm is cleared or set to a later time. When it goes off too early, it is made
    anew.

    Args:
        loop: that calls the function.
        call: the function.
    """

    __slots__ = ("_call", "_due", "_handle", "_loop", "_wakes")

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
        self._loop, self._call = loop, call
        self._due = self._wakes = inf
        self._handle: asyncio.TimerHandle | None = None

    @property
    def is_set(self) -> bool:
        """Whether the function is to be called."""
        return self._due < inf

    def set(self, seconds: float) -> None:
        """Call the function after that many seconds from now, and not before."""
        self._due = self._loop.time() + seconds
        if self._due < self._wakes:
            self._wake_at(self._due)

    def clear(self) -> None:
        """Do not call the function."""
        self._due = inf

    def end(self) -> None:
        """Clear it for good, and give up the loop's timer and the function, which often belongs to its owner."""
        self._due = self._wakes = inf
        self._call = _nothing
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _wake_at(self, when: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._handle, self._wakes = self._loop.call_at(when, self._wake), when

    def _wake(self) -> None:
        self._handle, self._wakes = None, inf
        if self._due > self._loop.time():
            if self.is_set:
                self._wake_at(self._due)
            return
        self._due = inf
        self._call()


class Entry:
    """A function in a `Queue`.

    Attributes:
        due: when it is called, as the loop's time.
        call: the function; None: it was cancelled.
    """

    __slots__ = ("call", "due")

    def __init__(self, due: float, call: Callable[[], None]) -> None:
        self.due = due
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Do not call the function."""
        self.call = None

    def go(self) -> None:
        """Call the function, if it was not cancelled."""
        if self.call is not None:
            self.call()


class Queue:
    """Calls functions, each after the same time, unless they are cancelled before: with one timer of the loop.

    Those that were cancelled stay in the queue until the timer goes off, so the time should be short.

    Args:
        loop: that calls the functions.
        seconds: after which it does.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop, self._seconds = loop, seconds
        self._entries: deque[Entry] = deque()

    def add(self, call: Callable[[], None]) -> Entry:
        """Add a function."""
        entry = Entry(self._loop.time() + self._seconds, call)
        self._entries.append(entry)
        if len(self._entries) == 1:
            self._loop.call_at(entry.due, self._wake)
        return entry

    def _wake(self) -> None:
        now, due = self._loop.time(), list[Entry]()
        while self._entries and (self._entries[0].due <= now or self._entries[0].call is None):
            due.append(self._entries.popleft())
        if self._entries:
            self._loop.call_at(self._entries[0].due, self._wake)
        for entry in due:
            if entry.call is not None:
                self._loop.call_soon(entry.go)


def _nothing() -> None:
    pass


@lru_cache(2)
def queue_of(loop: asyncio.AbstractEventLoop, seconds: float) -> Queue:
    """Return a loop's queue for a time in seconds, the same for all that ask."""
    return Queue(loop, seconds)
