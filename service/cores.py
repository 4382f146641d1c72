"""Which cores this process may use, and whether others use them. `runtime` has one thread per core."""

import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path, PurePosixPath

_BUSY = 0.75  # of the cores, on average over a minute


def busy() -> bool:
    """Whether others use the machine so much that times measured now say little. False where it cannot be told."""
    try:
        return os.getloadavg()[0] > _BUSY * (os.cpu_count() or 1)
    except (AttributeError, OSError):
        return False


def usable_cores(root: Path = Path("/"), *, sharing: int = 1) -> int:
    """Return how many cores this process may use, at least 1, by its CPU affinity and its control groups' quotas.

    Quotas are rounded down: with one thread too many, all threads would wait for the next period of the quota.

    Args:
        root: the folder that contains `/proc` and `/sys`.
        sharing: processes that share the quotas, while each has cores of its own.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *(quota // sharing for quota in _quotas(root))]))


def core_groups(count: int, root: Path = Path("/")) -> list[set[int]]:
    """Share the cores of this process' CPU affinity out among so many processes: each core to one, NUMA nodes apart.

    Hardware threads of one core stay together where the numbers allow it. With fewer processes than nodes, each gets
    whole nodes; with more, a node's cores are shared out among its processes. Linux only.

    Args:
        count: of the processes, at most that of the cores.
        root: the folder that contains `/sys`.
    """
    usable = os.sched_getaffinity(0)
    folders = sorted((root / "sys/devices/system/node").glob("node[0-9]*"))
    nodes = [cores for folder in folders if (cores := _numbers(folder / "cpulist") & usable)]
    if set(chain(*nodes)) != usable:  # no NUMA, or not told
        nodes = [usable]
    if count < len(nodes):
        return [set(chain(*nodes[i::count])) for i in range(count)]
    shares = [1] * len(nodes)
    for _ in range(count - len(nodes)):  # to the node whose processes have the most cores each
        most = max(range(len(nodes)), key=lambda i: len(nodes[i]) / shares[i])
        shares[most] += 1
    groups = []
    for node, share in zip(nodes, shares, strict=True):
        ordered = sorted(node, key=lambda core: (min(_siblings(core, root)), core))
        groups += [set(ordered[i * len(node) // share : (i + 1) * len(node) // share]) for i in range(share)]
    return groups


def _siblings(core: int, root: Path) -> set[int]:
    """The hardware threads of a core."""
    return _numbers(root / f"sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list") | {core}


def _numbers(path: Path) -> set[int]:
    """Read a list of cores such as `0-3,8`; empty where there is none."""
    try:
        parts = [part.partition("-") for part in path.read_text().strip().split(",") if part]
        return {core for first, _, last in parts for core in range(int(first), int(last or first) + 1)}
    except (OSError, ValueError):
        return set()


def _quotas(root: Path) -> Iterator[int]:
    """The CPU quotas, in whole cores, of this process' control group and of all groups above it."""
    for folder in _groups(root):
        with suppress(OSError, ValueError, ZeroDivisionError):  # no quota: "max", or no such file in the topmost group
            quota, period = (folder / "cpu.max").read_text().split()
            yield int(quota) // int(period)
        with suppress(OSError, ValueError, ZeroDivisionError):
            allowed = int((folder / "cpu.cfs_quota_us").read_text())
            if allowed > 0:  # -1: no quota
                yield allowed // int((folder / "cpu.cfs_period_us").read_text())


def _groups(root: Path) -> Iterator[Path]:
    """The folders of this process' control groups for the CPU, of versions 1 and 2 (a machine may have both)."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
        mounts = (root / "proc/self/mountinfo").read_text().splitlines()
    except OSError:  # not Linux
        return
    paths = {}
    for line in filter(None, lines):  # "4:cpu,cpuacct:/path", and "0::/path" of version 2
        _, controllers, path = line.split(":", 2)
        if controllers == "" or "cpu" in controllers.split(","):
            paths["cgroup2" if controllers == "" else "cgroup"] = PurePosixPath(path)
    for line in filter(None, mounts):  # "31 23 0:28 ROOT MOUNTED options - TYPE source OPTIONS"
        first, _, last = line.partition(" - ")
        part, mounted = first.split()[3:5]
        kind, *_, options = last.split()
        if kind in paths and (kind == "cgroup2" or "cpu" in options.split(",")):
            top = root / mounted.lstrip("/")
            ours = paths[kind]
            # In a container, the mounted root may be the container's own group, while its path is still the host's.
            inside = ours.relative_to(part) if ours.is_relative_to(part) and ".." not in ours.parts else PurePosixPath()
            yield from (top / step for step in (inside, *inside.parents))
