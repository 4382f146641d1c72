"""How many cores this process may use. `runtime` gives as many threads to the server's processes together."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath


def usable_cores(root: Path = Path("/")) -> int:
    """Cores that this process may use, at least 1: its affinity, and what control groups leave it of their time.

    Half a core is one thread: rounded down, since a thread too many only makes all of them wait for the next period.

    Args:
        root: where `/proc` and `/sys` are looked for.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *_quotas(root)]))


def _quotas(root: Path) -> Iterator[int]:
    """Whole cores of time that each control group allows which this process is in: its own and all above it."""
    for folder in _groups(root):
        with suppress(OSError, ValueError, ZeroDivisionError):  # none: "max", or no such file in the topmost group
            quota, period = (folder / "cpu.max").read_text().split()
            yield int(quota) // int(period)
        with suppress(OSError, ValueError, ZeroDivisionError):
            allowed = int((folder / "cpu.cfs_quota_us").read_text())
            if allowed > 0:  # -1: none
                yield allowed // int((folder / "cpu.cfs_period_us").read_text())


def _groups(root: Path) -> Iterator[Path]:
    """The folders of this process' control groups that rule the CPU, of version 1 and 2 (a machine may have both)."""
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
            # A container may see its own group as the root of all, and still be told the host's name for it.
            inside = ours.relative_to(part) if ours.is_relative_to(part) and ".." not in ours.parts else PurePosixPath()
            yield from (top / step for step in (inside, *inside.parents))
