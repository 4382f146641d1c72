"""What a hostile request does to everybody else: `/livez` is asked all the while, and the server's memory is watched.

    with attacked(server) as seen:
        server.client.post("/v1/classify", content=hostile)
    seen.check()

The watching is done by a process of its own, so that what the test itself computes delays no measurement. It is started
once, for all tests.
`ATTACK_FREEZE_S` allows more on a machine that has other work to do; `ATTACK_SHOW` names a file for what was seen.
"""

import atexit
import contextlib
import functools
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

FREEZE_S = float(os.environ.get("ATTACK_FREEZE_S", "0.25"))
GROWTH = 300e6  # bytes
_EVERY_S = 0.01


@dataclass
class Seen:
    """What was measured while the block ran.

    Attributes:
        asked: how many times `/livez` answered.
        longest: seconds that the slowest answer took.
        growth: bytes by which the resident memory of the server's processes exceeded that before, at its highest.
        failures: what `/livez` answered instead of 200.
    """

    asked: int = 0
    longest: float = 0.0
    growth: float = 0.0
    failures: tuple[str, ...] = ()

    def check(self, *, freeze: float = FREEZE_S, growth: float = GROWTH) -> None:
        """Fail where `/livez` was late or missing, or where memory grew too far."""
        assert not self.failures, self.failures
        assert self.asked, "/livez was never answered"
        assert self.longest <= freeze, f"/livez took {self.longest:.3f} s ({self.asked} answers)"
        assert self.growth <= growth, f"memory grew by {self.growth / 1e6:.0f} MB"


@functools.cache
def _watcher() -> subprocess.Popen[str]:
    """The process that watches."""
    process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(process.kill)
    return process


@contextlib.contextmanager
def attacked(server) -> Iterator[Seen]:
    """Watch a `tests.conftest.Server` while the block attacks it."""
    watcher = _watcher()

    def tell(*words: object) -> str:
        print(*words, file=watcher.stdin, flush=True)
        return watcher.stdout.readline()

    seen = Seen()
    assert tell(*server.url.removeprefix("http://").split(":"), server.process.pid) == "watching\n"
    try:
        yield seen
    finally:
        seen.__dict__.update(json.loads(tell("over")))
    if file := os.environ.get("ATTACK_SHOW"):
        name = os.environ.get("PYTEST_CURRENT_TEST", "").removesuffix(" (call)")
        with Path(file).open("a") as lines:
            print(f"{seen.longest:.3f} s {seen.growth / 1e6:+5.0f} MB  {name}", file=lines)


def _resident(pid: int) -> int:
    total = 0
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
    return total


def _watch(host: str, port: int, pid: int) -> None:
    """Ask and measure until a line comes in, then print what was seen."""
    over = threading.Event()
    highest = before = _resident(pid)
    asked, longest, failures = 0, 0.0, []

    def ask() -> None:
        nonlocal asked, longest
        while not over.is_set():
            connection = http.client.HTTPConnection(host, port, timeout=60)
            start = time.perf_counter()
            try:
                connection.request("GET", "/livez")
                response = connection.getresponse()
                if response.status != 200:
                    failures.append(f"{response.status} {response.read()[:200]!r}")
                asked += 1
            except OSError as error:
                failures.append(repr(error))
            finally:
                longest = max(longest, time.perf_counter() - start)
                connection.close()
            over.wait(_EVERY_S)

    def weigh() -> None:
        nonlocal highest
        while not over.wait(_EVERY_S):
            highest = max(highest, _resident(pid))

    threads = [threading.Thread(target=ask), threading.Thread(target=weigh)]
    for thread in threads:
        thread.start()
    print("watching", flush=True)
    sys.stdin.readline()
    over.set()
    for thread in threads:
        thread.join()
    found = {"asked": asked, "longest": longest, "growth": highest - before, "failures": failures[:5]}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    for line in sys.stdin:
        of_host, of_port, of_process = line.split()
        _watch(of_host, int(of_port), int(of_process))
