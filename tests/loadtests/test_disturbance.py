"""Other processes on the machine are seen, ours and the server's are not taken for them."""

import os
import subprocess
import sys
import time

import psutil
import pytest

from loadtests.client import Limits as LoadLimits
from loadtests.client import Request, closed_loop, run
from loadtests.disturbance import Disturbance, Limits, Watcher, server_processes
from loadtests.target import Target

BURN = "import time\nend = time.monotonic() + 30\nwhile time.monotonic() < end: pass"


@pytest.mark.parametrize(
    ("disturbance", "signs"),
    [
        (Disturbance(0.1, 0.01, 0.1), []),
        (Disturbance(None, 0.0, 0.0), []),
        (Disturbance(0.6, 0.0, 0.0), ["other processes kept 0.60 cores busy"]),
        (Disturbance(0.0, 0.05, 0.5), ["the hypervisor took 5.0% of the time", "the processor was 50% slower"]),
    ],
)
def test_signs(disturbance, signs):
    assert disturbance.signs(Limits()) == signs


def orphan():
    """Start a busy process that is no child of this one."""
    busy = (
        f"subprocess.Popen([sys.executable, '-c', {BURN!r}], stdout=-3, stderr=-3, start_new_session=True)"  # DEVNULL
    )
    starter = f"import subprocess, sys; print({busy}.pid, flush=True)"
    return psutil.Process(int(subprocess.run([sys.executable, "-c", starter], capture_output=True, check=True).stdout))


def spent(watcher, meanwhile):
    """The cores that others kept busy, in the quietest of some short looks."""
    found = []
    for _ in range(3):
        watcher.start()
        meanwhile()
        found.append(watcher.stop().others)
    return min(found)


def test_a_busy_process_is_seen_and_a_child_is_not(server):
    watcher = Watcher(Target.parse(server.url))
    calm = spent(watcher, lambda: time.sleep(0.5))
    busy = orphan()
    try:
        with_other = spent(watcher, lambda: time.sleep(0.5))
    finally:
        busy.kill()
    child = subprocess.Popen([sys.executable, "-c", BURN])
    try:
        with_child = spent(watcher, lambda: time.sleep(0.5))
    finally:
        child.kill()
        child.wait()
    # What else runs on the machine of the tests keeps at most all cores busy: then one more cannot be seen.
    if calm > os.cpu_count() - 1.5:
        pytest.skip(f"other processes keep {calm:.1f} cores of {os.cpu_count()} busy")
    assert with_other > calm + 0.2
    assert with_child < with_other


def test_the_server_under_load_is_no_disturbance(server):
    target = Target.parse(server.url)
    (process, *_) = server_processes(target)
    assert process.is_running()
    request = Request("GET", "/metrics")
    watcher = Watcher(target)
    ignorant = Watcher(Target("http", "127.0.0.1", 1, ip="127.0.0.1"))
    assert server_processes(Target("http", "127.0.0.1", 1)) == []
    ignorant.start()
    watcher.start()
    before = process.cpu_times()
    run(closed_loop(target, [request], concurrency=4, limits=LoadLimits(1.0)))
    after = process.cpu_times()
    used = after.user + after.system - before.user - before.system
    found = watcher.stop()
    assert used > 0.2
    cores = os.cpu_count()
    assert found.others <= cores - used + 0.3
    assert ignorant.stop().others is None  # it cannot tell the server's from others


def test_a_server_elsewhere():
    """Then all but our own processes of this machine are others."""
    assert server_processes(Target("http", "192.0.2.1", 80, ip="192.0.2.1")) == []
    watcher = Watcher(Target("http", "192.0.2.1", 80, ip="192.0.2.1"))
    watcher.start()
    time.sleep(0.1)
    assert watcher.stop().others >= 0


def test_waiting_for_quiet_ends():
    target = Target("http", "192.0.2.1", 80, ip="192.0.2.1")
    assert Watcher(target, Limits(others=1e9, stolen=1e9, slower=1e9)).wait_for_quiet(5)
    begin = time.monotonic()
    assert not Watcher(target, Limits(others=-1.0)).wait_for_quiet(0.1)
    assert time.monotonic() - begin < 5
