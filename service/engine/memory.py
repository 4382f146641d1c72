"""How much memory this process uses, to tell what a model takes; `cuda` tells that of a GPU."""

import ctypes
import os
import re
from contextlib import suppress
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h
_KEPT = 64 << 20  # bytes, as glibc chooses at most
_PEAK = re.compile(rb"VmHWM:\s+(\d+)")


def resident() -> int:
    """Return the resident memory of this process in bytes; 0 where it cannot be asked for so."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def reset_peak() -> None:
    """Let `peak` begin anew. Linux only."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_bytes(b"5")


def peak() -> int:
    """Return the most resident memory of this process since `reset_peak`, in bytes; 0 where it cannot be told."""
    try:
        found = _PEAK.search(Path("/proc/self/status").read_bytes())
    except OSError:
        return 0
    return 1024 * int(found[1]) if found else 0


def give_back() -> None:
    """Let the C library give memory that was freed back to the system; it keeps it otherwise. glibc only."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def keep_freed() -> None:
    """Let the C library keep memory of images that is freed, for the next image. glibc only.

    Else each image's pixels would be new pages: in a process that loads no model, or a small one, that was a quarter of
    all its time. Where a large model is loaded glibc keeps memory by itself, as large blocks were freed before.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(_MMAP_THRESHOLD, _KEPT // 2)
        library.mallopt(_TRIM_THRESHOLD, _KEPT)
