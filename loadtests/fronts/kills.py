"""Processes of a server are killed under load, one after the other; what clients see of it."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from time import perf_counter

import psutil
from msgspec import Struct

from loadtests.client import Limits, Request, Sample, closed_loop, run
from loadtests.fronts.cost import metric
from loadtests.target import Target

_PATIENCE_S = 60.0
_CLOSED_S = 0.5  # after a kill, the kernel has closed all sockets of the process; another in its place takes longer
_PAUSE_S = 0.02  # of a client after a 503: without it, clients that are refused would take the cores from the start
Find = Callable[[], list[psutil.Process]]
Whole = Callable[[], bool]


class Kills(Struct, frozen=True):
    """What became of a load while processes of one kind were killed.

    Attributes:
        kills: how many.
        answered: requests with status 200.
        broken: requests whose connection ended without an answer.
        unready: requests that were answered with 503.
        others: requests with any other status.
        most_broken: by one kill.
        beyond: that broke when the kernel had closed the connections of the killed process, and those that waited at
            its socket: so they were others'.
        silence_s: the longest time without any answer 200, by kill the median and the longest.
        whole_s: from a kill until all processes were there again, and the service was ready: median and longest.
    """

    kills: int
    answered: int
    broken: int
    unready: int
    others: int
    most_broken: int
    beyond: int
    silence_s: tuple[float, float]
    whole_s: tuple[float, float]


def kill(
    address: Target, find: Find, count: int, request: Request, clients: int, whole: Whole, calm_s: float = 0.3
) -> Kills:
    """Kill so many of the processes that `find` finds, under the load of some clients.

    Args:
        address: of the server.
        find: the processes, of which the first is killed.
        count: how many kills.
        request: that all clients send.
        clients: how many there are.
        whole: says whether all processes are there, and work.
        calm_s: between a server that is whole again and the next kill.

    Raises:
        TimeoutError: the server was not whole in time.
    """
    samples: list[Sample] = []
    stop, moments, took = threading.Event(), list[float](), list[float]()
    _until(whole)
    begin = perf_counter()

    def ask() -> None:
        while not stop.is_set():
            try:
                limits = Limits(1.0, pause=_PAUSE_S)
                load = run(closed_loop(address, [request], concurrency=clients, limits=limits))
            except OSError:  # nobody listens for a moment
                samples.append(Sample(0, perf_counter() - begin, 0.0, 0, "connection"))
                time.sleep(0.01)
                continue
            samples.extend(sample._replace(start=sample.start + load.begin - begin) for sample in load.samples)

    client = threading.Thread(target=ask, daemon=True)
    client.start()
    for _ in range(count):
        time.sleep(calm_s)
        _until(lambda: bool(find()))
        victim = find()[0]
        moment = perf_counter()
        moments.append(moment - begin)
        victim.kill()
        _until(lambda victim=victim: victim not in find() and whole())  # type: ignore[misc]  # bound now
        took.append(perf_counter() - moment)
    time.sleep(1.5)
    stop.set()
    client.join()
    good = sorted(sample.start + sample.latency for sample in samples if sample.status == 200)
    # By when they broke: what is under way when a process is killed was sent before.
    broken = [sample.start + sample.latency for sample in samples if sample.failure]
    ends = [*moments[1:], perf_counter() - begin]
    by_kill = Counter(next((i for i, end in enumerate(ends) if moment < end), len(ends) - 1) for moment in broken)
    silences = [_silence(good, moment, end) for moment, end in zip(moments, ends, strict=True)]
    statuses = Counter(sample.status for sample in samples if not sample.failure)
    return Kills(
        count,
        statuses[200],
        len(broken),
        statuses[503],
        sum(statuses.values()) - statuses[200] - statuses[503],
        max(by_kill.values(), default=0),
        sum(not any(0 <= moment - kill < _CLOSED_S for kill in moments) for moment in broken),
        _middle_and_most(silences),
        _middle_and_most(took),
    )


def listens(process: psutil.Process, port: int) -> bool:
    """Return whether a process takes connections at a port."""
    try:
        return any(each.status == "LISTEN" and each.laddr.port == port for each in process.net_connections("tcp"))
    except psutil.Error:  # it has just ended
        return False


def ready(address: Target) -> bool:
    """Return whether a server says that it is ready."""
    try:
        return metric(address, "zooserve_ready") == 1
    except OSError:  # the process that was asked has just been killed
        return False


def _until(condition: Callable[[], bool]) -> None:
    end = perf_counter() + _PATIENCE_S
    while not condition():
        if perf_counter() > end:
            raise TimeoutError(f"the server was not whole again after {_PATIENCE_S:g} s")
        time.sleep(0.02)


def _silence(good: list[float], moment: float, end: float) -> float:
    """The longest time between two answers after a kill, and before the next."""
    times = [moment, *(each for each in good if moment < each < end)]
    return max((later - earlier for earlier, later in pairwise(times)), default=end - moment)


def _middle_and_most(values: list[float]) -> tuple[float, float]:
    ordered = sorted(values)
    return (ordered[len(ordered) // 2], ordered[-1]) if ordered else (0.0, 0.0)
