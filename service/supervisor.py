"""What the server's processes inherit from the process that starts them, and how they end with it.

`commands.serve` makes the folder, `bento` the rest before any process is started; `runtime` uses it.
"""

import json
import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs

from service.settings import Settings
from service.telemetry.counts import Counts

logger = logging.getLogger(__name__)
SHARED = "ZOOSERVE_SHARED"  # path of the memory where the processes note what was loaded and unloaded
_COUNTS = "ZOOSERVE_COUNTS"  # paths of the memory of their counts, as JSON
_SUPERVISOR = "ZOOSERVE_SUPERVISOR"  # the end of a pipe that stays open as long as the starting process lives
_MARGIN_S = 10.0  # seconds after drain and longest request, when a process that still has not ended is killed


@contextmanager
def state_folder() -> Iterator[Path]:
    """Make a folder for this server's state, and remove it at the end, and those of servers that were killed.

    It is in the user's folder for state: Debian 13 and Ubuntu remove files from /tmp that were not used for ten days.
    It is in /tmp only where the other cannot be written. It is locked while any of the server's processes lives,
    because systemd does not remove locked folders (tmpfiles.d(5)).
    """
    base = platformdirs.user_state_path("zooserve")
    try:
        if not base.is_absolute():
            raise NotADirectoryError(base)  # a user without a home
        base.mkdir(parents=True, exist_ok=True)
        alone = _lock(base, wait=True)  # a folder that is made but not locked yet is not taken for left
        try:
            _remove_left(base)
            folder = Path(tempfile.mkdtemp(prefix="server-", dir=base))
            lock = _lock(folder)
        finally:
            os.close(alone)
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="zooserve-"))
        lock = _lock(folder)
    os.set_inheritable(lock, True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _remove_left(base: Path) -> None:
    """Remove the folders of servers none of whose processes lives."""
    for folder in base.glob("server-*"):
        with suppress(OSError):  # it is locked: its server lives
            lock = _lock(folder)
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _lock(folder: Path, *, wait: bool = False) -> int:
    """Lock a folder until all that inherit the descriptor have closed it; raises OSError where it is locked."""
    import fcntl  # noqa: PLC0415 - POSIX only

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def prepare(settings: Settings) -> None:
    """Make what the server's processes inherit. In the process that starts them, before it does."""
    reading, _writing = os.pipe()  # the other end closes with this process, however that ends
    os.set_inheritable(reading, True)
    os.environ[_SUPERVISOR] = str(reading)
    os.environ[SHARED] = new_memory()
    if settings.workers > 1:
        # Counts and gauges for each process that there may be at once: twice as many while circus restarts them.
        os.environ[_COUNTS] = json.dumps([new_memory() for _ in range(2 * 2 * settings.workers)])


def new_memory() -> str:
    """Make a file in memory that has no name in any folder, so that nothing can remove it.

    Returns:
        A path under which this process and those that it starts can open it. On systems without such memory it is that
        of a file with a name.
    """
    try:
        return f"/proc/self/fd/{os.memfd_create('zooserve', 0)}"
    except (AttributeError, OSError):
        file, path = tempfile.mkstemp(prefix="zooserve-", dir=os.environ.get("BENTOML_HOME"))
        os.close(file)
        return path


def shared_counts(process: int) -> Counts | None:
    """The memory for the counts of this server process, by its number; None where it is the only one."""
    paths = os.environ.get(_COUNTS)
    return Counts(json.loads(paths), process) if paths else None


def end_with_supervisor(settings: Settings) -> None:
    """End this process, as after SIGTERM, when the one that started it has ended: nothing else would end it."""
    inherited = os.environ.get(_SUPERVISOR)
    if inherited is None:
        return

    def watch() -> None:
        os.read(int(inherited), 1)  # nothing is ever written: it returns when the other end is closed
        logger.warning("the process that started this one has ended: this one ends, too")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(settings.drain_s + settings.timeout_ms / 1000 + _MARGIN_S)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="supervisor", daemon=True).start()
