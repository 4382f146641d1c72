"""What else a machine does while a load test runs on it: what figures are worth depends on that.

Three signs, for none is enough: processor time of other processes, time that the hypervisor gave to others (steal),
and how much longer a fixed piece of work takes before and after a test than it ever took.
"""

import os
from statistics import median
from time import monotonic, perf_counter, sleep

import psutil
from msgspec import Struct

from loadtests.processes import family, spent
from loadtests.target import Target, is_here

_SPINS, _ROUNDS = 15, 20_000
_SHORT = 0.5  # seconds; of the look before a test


class Disturbance(Struct, frozen=True):
    """What else went on during a test.

    Attributes:
        others: cores that other processes kept busy, on average; None where they cannot be told from the server's.
        stolen: share of the time of all cores that the hypervisor gave to other machines.
        slower: share by which a fixed piece of work took longer, before or after, than the quickest time of this run.
    """

    others: float | None
    stolen: float
    slower: float

    def signs(self, limits: "Limits") -> list[str]:
        """Say which signs are over their limits, such as `other processes kept 0.6 cores busy`."""
        found = []
        if self.others is not None and self.others > limits.others:
            found.append(f"other processes kept {self.others:.2f} cores busy")
        if self.stolen > limits.stolen:
            found.append(f"the hypervisor took {self.stolen:.1%} of the time")
        if self.slower > limits.slower:
            found.append(f"the processor was {self.slower:.0%} slower")
        return found

    def __str__(self) -> str:
        others = "unknown" if self.others is None else f"{self.others:.2f} cores"
        return f"others {others}, stolen {self.stolen:.1%}, slower {self.slower:.0%}"


class Limits(Struct, frozen=True):
    """How much disturbance a test may have and count all the same; as `Disturbance` has it."""

    others: float = 0.15
    stolen: float = 0.02
    slower: float = 0.15


class Watcher:
    """Measures the disturbance of one test after the other, on the machine that it runs on."""

    def __init__(self, target: Target, limits: Limits = Limits()) -> None:  # noqa: B008 - it holds no state
        """Prepare for tests of a server.

        Args:
            target: its processes on this machine are no disturbance; neither is this one with its children.
            limits: of what counts as quiet.
        """
        self.limits = limits
        self._target = target
        self._quickest = float("inf")
        self._before = (0.0, 0.0, 0.0, 0.0)
        self._slow = 0.0
        self._servers = server_processes(target)
        self._local = is_here(target.ip or target.host)

    def start(self) -> None:
        """Begin. Takes some milliseconds of processor time."""
        self._slow = self._spin()
        self._before = self._look()

    def stop(self) -> Disturbance:
        """End, and say what was."""
        after = self._look()
        elapsed, busy, stolen, ours = (now - then for now, then in zip(after, self._before, strict=True))
        cores = os.cpu_count() or 1
        known = bool(self._servers) or not self._local
        others = max(0.0, (busy - ours) / elapsed) if known and elapsed > 0 else None
        share = max(0.0, stolen / (elapsed * cores)) if elapsed > 0 else 0.0
        return Disturbance(others, share, max(self._slow, self._spin()))

    def wait_for_quiet(self, seconds: float) -> bool:
        """Wait until the machine is quiet for half a second; whether it was, within so many seconds."""
        end = monotonic() + seconds
        while True:
            self.start()
            sleep(_SHORT)
            if not self.stop().signs(self.limits):
                return True
            if monotonic() > end:
                return False

    def _spin(self) -> float:
        """Do a fixed piece of work some times; the share by which the median is longer than the quickest ever."""
        took = []
        for _ in range(_SPINS):
            begin = perf_counter()
            sum(range(_ROUNDS))
            took.append(perf_counter() - begin)
        self._quickest = min(self._quickest, sorted(took)[1])  # the very quickest may be a slip of the clock
        return max(0.0, median(took) / self._quickest - 1)

    def _look(self) -> tuple[float, float, float, float]:
        """The moment, and the seconds so far: of all cores busy, stolen, and of ourselves with the server."""
        times = psutil.cpu_times()
        # Interrupts are not counted: they are mostly those of our own packets.
        busy = times.user + getattr(times, "nice", 0.0) + times.system
        return monotonic(), busy, getattr(times, "steal", 0.0), spent(family(os.getpid(), *self._servers))


def server_processes(target: Target) -> list[psutil.Process]:
    """Return the processes of this machine that listen where a target is; none where they cannot be seen."""
    if not is_here(target.ip or target.host):
        return []
    try:
        listening = [one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
    except (psutil.AccessDenied, OSError):
        return []
    pids = {one.pid for one in listening if one.pid and one.laddr and one.laddr.port == target.port}
    found = []
    for pid in pids - {os.getpid()}:
        try:
            found.append(psutil.Process(pid))
        except psutil.Error:
            continue
    return found
