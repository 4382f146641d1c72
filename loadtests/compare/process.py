"""One server at a time: started on given cores, waited for, and ended with every process that it started."""

import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from loadtests.client import Request, fetch, run
from loadtests.target import Target

_PR_SET_CHILD_SUBREAPER = 36
_GRACE = 5.0  # seconds between asking a server to stop and stopping it


class ServerError(Exception):
    """A server that did not start, or died, with the end of what it had printed."""


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, so that none can slip away (Linux only)."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@contextmanager
def on_cores(cores: set[int]) -> Iterator[None]:
    """Let processes that are started meanwhile, and theirs, run on these cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def running(
    command: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    cores: set[int],
    log: Path,
    address: Target,
    ready: str,
    patience: float,
) -> Iterator[float]:
    """Run a server. Yields the seconds that it took until `ready` was answered with 200.

    Raises:
        ServerError: it ended, or was not ready within `patience` seconds.
    """
    begin = time.perf_counter()
    with log.open("wb") as output, on_cores(cores):
        server = subprocess.Popen(  # noqa: S603 - the commands of `loadtests.compare.servers`
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        wait_until_ready(server, address, ready, begin + patience, log)
        yield time.perf_counter() - begin
        if server.poll() is not None:
            raise ServerError(f"it died with exit code {server.returncode}:\n{tail(log)}")
    finally:
        stop_all()


def stop_all() -> None:
    """End every descendant of this process: politely first, then at once. Waits until all are gone."""
    for end, grace in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, _GRACE)):
        deadline = time.perf_counter() + grace
        asked: set[psutil.Process] = set()
        while (alive := _descendants()) and time.perf_counter() < deadline:
            for process in alive:
                if process not in asked:
                    with suppress(psutil.NoSuchProcess):
                        process.send_signal(end)
            asked.update(alive)
            psutil.wait_procs(alive, timeout=0.2)
    if alive:
        raise ServerError(f"these processes cannot be ended: {', '.join(str(p.pid) for p in alive)}")


def free_port(span: int = 5) -> int:
    """Return a port that is free on 127.0.0.1, as are those that follow it: some servers take several."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port + span < 2**16 and all(_free(port + n) for n in range(span)):
            return port


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _descendants() -> list[psutil.Process]:
    """Every process below this one. Those that ended are waited for, so that no zombie stays."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
            elif process.ppid() == os.getpid():
                with suppress(ChildProcessError):
                    os.waitpid(process.pid, os.WNOHANG)
    return found


def wait_until_ready(
    server: "subprocess.Popen[bytes]",
    address: Target,
    path: str,
    deadline: float,
    log: Path,
    hopeless: Callable[[bytes], str] = lambda _: "",
) -> None:
    """Wait until a server answers 200.

    Args:
        server: its process.
        address: where it listens.
        path: that is asked.
        deadline: `perf_counter()` after which nobody waits.
        log: where it prints to.
        hopeless: says of the body of another answer why it never will; nothing where it may.

    Raises:
        ServerError: it ended, never will be ready, or was not in time; with its reason.
    """
    while True:
        if server.poll() is not None:
            raise ServerError(f"it ended with exit code {server.returncode} before it was ready; it said:\n{tail(log)}")
        with suppress(OSError):
            answer = run(fetch(address, Request("GET", path), timeout=5.0))
            if answer.status == 200:
                return
            if problem := hopeless(answer.body):
                raise ServerError(f"it will not be ready: {problem}")
        if time.perf_counter() > deadline:
            raise ServerError(f"{path} did not answer 200 in time:\n{tail(log)}")
        time.sleep(0.1)


def tail(log: Path, lines: int = 20) -> str:
    """Return the last lines that a server printed."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
