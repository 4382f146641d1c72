"""What the server's processes share: a state folder, memory, and a pipe that ends them with their parent process.

`commands.serve` makes the folder, `bento` the rest before it starts the processes; `runtime` uses them.
"""

import faulthandler
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from msgspec import structs

from service.cores import core_groups, usable_cores
from service.engine.providers import CUDA, available_providers, gpu_count
from service.fronts.channel import listen
from service.limits import most_connections
from service.settings import SettingError, Settings
from service.telemetry.counts import Counts
from zoo import home
from zoo.variables import PREFIX

logger = logging.getLogger(__name__)
SHARED = "ZOOSERVE_SHARED"  # path of the memory in which the processes record which models were loaded and unloaded
_COUNTS = "ZOOSERVE_COUNTS"  # paths of the memory of their counts, as JSON
ENGINES = "ZOOSERVE_ENGINE"  # descriptors with which fronts connect to the engines, as JSON
_SUPERVISOR = "ZOOSERVE_SUPERVISOR"  # descriptor of a pipe that is open as long as the parent process lives
_CORES_PER_FRONT = 3  # a front ends at some 2,000 images a second, which take three cores to decode
BEGIN = b"1"  # what a process of an engine reads when it is to begin
_STEADY_S = 1.0  # an engine that has lived that long is started again at once, by the process that stands by
_LATEST_S = 30.0  # the longest time before one that ends soon is started again
_STILL_S = 10.0  # an event loop that has stood still for less is perhaps only busy
_MARGIN_S = 10.0  # seconds after drain and longest request; then a process that has not ended is killed


@contextmanager
def state_folder() -> Iterator[Path]:
    """Make a folder for this server's state, and remove it at the end. Also removes those of killed servers.

    It is in the user's state folder, since Debian 13 and Ubuntu remove files from /tmp that were not used for ten days.
    It is in /tmp only if the other folder cannot be written. It is locked while any of the server's processes lives:
    systemd does not remove locked folders (tmpfiles.d(5)).
    """
    base = home.state_folder()
    try:
        base.mkdir(parents=True, exist_ok=True)
        base.chmod(0o700)  # who may open it may lock it, and would keep servers from starting
        alone = _lock(base, wait=True)  # else another server could remove our folder before it is locked
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
    """Remove the folders of servers that have no process any more."""
    for folder in base.glob("server-*"):
        with suppress(OSError):  # it is locked: its server lives
            lock = _lock(folder)
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _lock(folder: Path, *, wait: bool = False) -> int:
    """Lock a folder until all processes that inherit the descriptor have closed it.

    Returns:
        The descriptor.

    Raises:
        OSError: it is locked already; not with `wait`.
    """
    import fcntl  # noqa: PLC0415 - POSIX only

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def prepare(settings: Settings) -> None:
    """Make what the server's processes inherit. Called in their parent process, before it starts them."""
    reading, _writing = os.pipe()  # the other end is closed when this process ends for any reason
    os.set_inheritable(reading, True)
    os.environ[_SUPERVISOR] = str(reading)
    os.environ[SHARED] = new_memory()
    if settings.processes > 1 or settings.fronts > 0:
        # Counts and gauges for each process that may exist at a time: twice as many while circus restarts them, and the
        # engines'.
        places = 2 * settings.processes + settings.engines
        os.environ[_COUNTS] = json.dumps([new_memory() for _ in range(2 * places)])
    connections = most_connections(settings.max_connections, 2 if settings.grpc_port else 1)
    if connections < settings.max_connections:
        logger.warning(
            "too few files may be open (`ulimit -Hn`) for ZOOSERVE_MAX_CONNECTIONS=%d: it is %d",
            settings.max_connections,
            connections,
        )
    chosen = {"FRONTS": settings.fronts, "ENGINES": settings.engines, "MAX_CONNECTIONS": connections}
    os.environ |= {f"{PREFIX}{name}": str(value) for name, value in chosen.items()}
    if settings.fronts > 0:
        sockets = [listen() for _ in range(settings.engines)]
        os.environ[ENGINES] = json.dumps([address for _, address in sockets])
        apart = settings.engines > 1 and not _on_gpu(settings)
        groups = core_groups(settings.engines) if apart else [None] * settings.engines
        for number, ((listener, _), cores) in enumerate(zip(sockets, groups, strict=True)):
            keep = threading.Thread(
                target=_keep_engine,
                args=(number, settings.engines, listener.detach(), cores),
                name=f"engine-{number}",
                daemon=True,
            )
            keep.start()


def with_fronts(settings: Settings) -> Settings:
    """Choose the number of fronts and engines where the settings leave it open, and refuse what does not go together.

    Raises:
        SettingError: names the settings.
    """
    fronts, engines, cores = settings.fronts, settings.engines, usable_cores()
    gpus = gpu_count() if _on_gpu(settings) else 0
    if fronts < 0:
        able = hasattr(os, "memfd_create") and settings.workers == 1
        fronts = cores // _CORES_PER_FRONT if able and gpus else 0
        if engines > 1:
            fronts = max(fronts, engines)
    if fronts > 0 and settings.workers > 1:
        raise SettingError(
            f"ZOOSERVE_FRONTS={fronts} and ZOOSERVE_WORKERS={settings.workers}: with fronts, engines run the models. "
            "Set ZOOSERVE_ENGINES in place of ZOOSERVE_WORKERS."
        )
    if fronts > 0 and not hasattr(os, "memfd_create"):
        raise SettingError(f"ZOOSERVE_FRONTS={fronts}: fronts need Linux. Set ZOOSERVE_FRONTS=0.")
    if fronts == 0 and engines > 1:
        raise SettingError(f"ZOOSERVE_ENGINES={engines} needs fronts: set ZOOSERVE_FRONTS to at least 1.")
    if engines > (most := gpus or cores):
        raise SettingError(f"ZOOSERVE_ENGINES={engines}: there are {most} {'GPUs' if gpus else 'cores'} for them.")
    return structs.replace(settings, fronts=fronts, engines=(engines or gpus or 1) if fronts else 0)


def _on_gpu(settings: Settings) -> bool:
    """Whether models run on GPUs: chosen as `choose` does, to which `auto` without a GPU means the CPU."""
    return settings.device in {"cuda", "tensorrt"} or (
        settings.device == "auto" and CUDA in available_providers() and gpu_count() > 0
    )


def _keep_engine(number: int, engines: int, listener: int, cores: set[int] | None) -> None:
    """Start an engine's process, and again whenever it has ended, for as long as this process lives.

    A spare process stands by, whose libraries are loaded: that takes longer than most models, and 45 MB.

    Args:
        number: of the engine, from 0.
        engines: how many there are.
        listener: descriptor of the socket at which it accepts fronts.
        cores: on which it runs; None: on all, and on a GPU of its own.
    """
    wait = 0.0
    inherits = [int(path.rpartition("/")[2]) for path in _memories()]
    inherits += [listener, int(os.environ[_SUPERVISOR])]
    command = [sys.executable, "-m", "service.engine_process", str(number), str(listener)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)}
    if cores is not None:
        os.sched_setaffinity(0, cores)  # of this thread alone, from which its children have it
    elif engines > 1:
        environment["CUDA_VISIBLE_DEVICES"] = gpu_of(number)

    def start() -> subprocess.Popen[bytes]:
        while True:
            try:
                return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, pass_fds=inherits)  # noqa: S603
            except OSError:
                logger.exception("engine %d cannot be started; it is tried again in 1 s", number)
                time.sleep(1.0)

    spare: subprocess.Popen[bytes] | None = None
    while True:
        process, spare = spare or start(), None
        try:
            process.communicate(BEGIN, timeout=_STEADY_S)
            wait = min(_LATEST_S, 2 * wait + 0.25)
        except subprocess.TimeoutExpired:
            spare, wait = start(), 0.0
            process.wait()
        logger.error("engine %d has ended and is started again in %g s", number, wait)
        time.sleep(wait)


def gpu_of(number: int) -> str:
    """Return which GPU is visible to an engine: with no other one, nothing can take memory there by mistake."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return visible.split(",")[number] if visible else str(number)


def _memories() -> list[str]:
    paths = [os.environ[SHARED], *json.loads(os.environ[_COUNTS])]
    return [path for path in paths if path.startswith("/proc/self/fd/")]


def new_memory() -> str:
    """Make an anonymous file in memory, which nothing can remove.

    Returns:
        A path with which this process and its children can open it. On systems without anonymous files, that of a
        temporary file.
    """
    try:
        return f"/proc/self/fd/{os.memfd_create('zooserve', 0)}"
    except (AttributeError, OSError):
        file, path = tempfile.mkstemp(prefix="zooserve-", dir=os.environ.get("BENTOML_HOME"))
        os.close(file)
        return path


def shared_counts(process: int) -> Counts | None:
    """Return the counts of this server process in shared memory; None if it is the only one.

    Args:
        process: its number; -1: the first engine, -2 the second.
    """
    paths = os.environ.get(_COUNTS)
    return Counts(json.loads(paths), process) if paths else None


def end_with_supervisor(settings: Settings) -> None:
    """End this process, as after SIGTERM, when its parent process has ended. Otherwise it would run for ever."""
    inherited = os.environ.get(_SUPERVISOR)
    if inherited is None:
        return

    def watch() -> None:
        os.read(int(inherited), 1)  # nothing is written: it returns when the other end is closed
        logger.warning("the process that started this one has ended: this one ends, too")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(settings.drain_s + settings.timeout_ms / 1000 + _MARGIN_S)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="supervisor", daemon=True).start()


def end_unless_alive(seconds: float) -> None:
    """End this process if this is not called again for so long; it writes where its threads are.

    A thread that holds the interpreter's lock for ever lets no other say that the process hangs. This needs no lock.

    Args:
        seconds: 10 at least are waited; 0: for ever.
    """
    if seconds:
        faulthandler.dump_traceback_later(max(seconds, _STILL_S), exit=True)


def end_by_itself() -> None:
    """Let this process take its time from now on, whatever `end_unless_alive` was told."""
    faulthandler.cancel_dump_traceback_later()
