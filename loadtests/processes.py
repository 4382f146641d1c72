"""Processor time and memory of processes of this machine, those that end meanwhile left out."""

from collections.abc import Iterable
from contextlib import suppress

import psutil


def family(*roots: psutil.Process | int) -> set[psutil.Process]:
    """Return processes, given as such or by their ids, and all that they started."""
    found = set[psutil.Process]()
    for root in roots:
        with suppress(psutil.Error):
            process = psutil.Process(root) if isinstance(root, int) else root
            found |= {process, *process.children(recursive=True)}
    return found


def spent(processes: Iterable[psutil.Process]) -> float:
    """Return the seconds of processor time that processes have spent so far."""
    total = 0.0
    for process in processes:
        with suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def resident(processes: Iterable[psutil.Process]) -> int:
    """Return the resident memory of processes, in bytes."""
    total = 0
    for process in processes:
        with suppress(psutil.Error):
            total += process.memory_info().rss
    return total
