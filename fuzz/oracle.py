"""What an input may cost: processor time and memory, each at most so much per byte of it. Called for every input.

A parser that is slow or greedy by a factor is found at once, one that is quadratic as soon as an input is long enough.
"""

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")
_PEAK = re.compile(rb"VmHWM:\s+(\d+)")
_TRIES = 3  # the first run of a kind pays for what is loaded only once, and other processes disturb


class Cost(NamedTuple):
    """What one input took.

    Attributes:
        seconds: of the thread's processor time.
        memory: bytes by which the process was larger at most than before; 0 where the system does not tell.
    """

    seconds: float
    memory: int


class Limit(NamedTuple):
    """What an input of `n` bytes may take: `fixed + each * n`, of seconds and of bytes."""

    seconds: float = 0.25
    seconds_each: float = 10e-6
    memory: float = 64e6
    memory_each: float = 64.0

    def exceeded(self, cost: Cost, size: int) -> str:
        """Say what was too much; nothing where all was well."""
        if cost.seconds > (most := self.seconds + self.seconds_each * size):
            return f"{size} bytes took {cost.seconds:.2f} s, more than {most:.2f} s"
        if cost.memory > (room := self.memory + self.memory_each * size):
            return f"{size} bytes took {cost.memory / 1e6:.0f} MB, more than {room / 1e6:.0f} MB"
        return ""


class CostError(AssertionError):
    """An input that costs more than its size allows."""


def judge(check: Callable[[bytes], None], data: bytes, limit: Limit) -> Cost:
    """Check an input and what it costs.

    Raises:
        CostError: it cost too much, three times in a row.
        Exception: whatever `check` raises: it is a fault of the parser.
    """
    for attempt in range(_TRIES):
        cost = measure(check, data)
        fault = limit.exceeded(cost, len(data))
        if not fault:
            break
        if attempt == _TRIES - 1:
            raise CostError(fault)
    return cost


def measure(check: Callable[[bytes], None], data: bytes) -> Cost:
    """Run `check` on an input and measure it."""
    before, start = _peak(reset=True), time.thread_time()
    check(data)
    return Cost(time.thread_time() - start, max(0, _peak() - before))


def _peak(*, reset: bool = False) -> int:
    """The largest resident memory of this process, in bytes, since it was reset to what it is now."""
    if sys.platform != "linux":
        return 0
    if reset:
        _RESET.write_bytes(b"5")
    found = _PEAK.search(_STATUS.read_bytes())
    return 1024 * int(found[1]) if found else 0
