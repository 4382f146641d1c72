"""A Ray cluster of several nodes on this machine: a raylet each, loopback addresses, one core each."""

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from loadtests.compare.process import ServerError, free_port

_STORE_BYTES = 100_000_000
_PATIENCE = 90.0
_FIRST_HOST = 2  # Ray takes 127.0.0.1 for the machine's address in its network; 127.0.0.2 stays on the loopback


class Nodes:
    """Running nodes.

    Args:
        count: how many; the first is the head.
        folder: for logs and sockets; its path must be short.

    Attributes:
        address: of the cluster.
        environment: variables with which it is reached.
    """

    def __init__(self, count: int, folder: Path) -> None:
        self.address = f"127.0.0.{_FIRST_HOST}:{free_port()}"
        self.environment = {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",  # as bare loops have it; Ray's 15 yields to all else on a busy machine
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
        }
        self._folder = folder
        self._nodes: list[subprocess.Popen[bytes]] = []
        try:
            for number in range(count):
                self._nodes.append(self._start(number))
                self._wait(number)
        except BaseException:
            self.end()
            raise

    def actors(self) -> list[psutil.Process]:
        """Return the processes of the actors that score."""
        return [process for process in self.processes() if "MapWorker" in _title(process)]

    def kill_node(self, number: int) -> None:
        """End a node and all its processes at once, as a power cut does."""
        _kill(self._nodes[number])

    def end(self) -> None:
        """End all nodes; the head last."""
        for node in reversed(self._nodes):
            _kill(node)

    def _start(self, number: int) -> "subprocess.Popen[bytes]":
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1", "--disable-usage-stats"]
        ray += ["--include-log-monitor=false"]  # reads all logs for drivers, and ours asks for none
        ray += [f"--node-ip-address=127.0.0.{number + _FIRST_HOST}", f"--object-store-memory={_STORE_BYTES}"]
        if number == 0:
            port = self.address.rpartition(":")[2]
            ray += ["--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={self._folder}"]
        else:
            ray += [f"--address={self.address}"]
        with (self._folder / f"node-{number}.log").open("wb") as log:
            return subprocess.Popen(  # noqa: S603 - Ray's own command
                ray,
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _wait(self, number: int) -> None:
        end, log = time.monotonic() + _PATIENCE, self._folder / f"node-{number}.log"
        while "Ray runtime started" not in (said := log.read_text(errors="replace")):
            if time.monotonic() > end or self._nodes[number].poll() is not None:
                raise ServerError(f"node {number} of Ray did not start:\n{said[-2000:]}")
            time.sleep(0.2)

    def processes(self) -> list[psutil.Process]:
        """Return all processes of the nodes."""
        found = []
        for node in self._nodes:
            with suppress(psutil.NoSuchProcess):
                found += psutil.Process(node.pid).children(recursive=True)
        return found


def _title(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def _kill(node: "subprocess.Popen[bytes]") -> None:
    with suppress(psutil.NoSuchProcess):
        own = psutil.Process(node.pid)
        for process in [own, *own.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
    node.wait()


@contextmanager
def cluster(count: int = 2) -> Iterator[Nodes]:
    """Run a cluster until the block ends.

    Raises:
        ServerError: a node did not start, with its log.
    """
    with tempfile.TemporaryDirectory(prefix="zs-", ignore_cleanup_errors=True) as folder:
        nodes = Nodes(count, Path(folder))
        try:
            yield nodes
        finally:
            nodes.end()
