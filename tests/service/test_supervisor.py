"""The process that starts the server's processes: its folder, and what is left of a server when something is killed."""

import concurrent.futures
import contextlib
import fcntl
import http.client
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psutil
import pytest

from service.settings import Settings
from service.supervisor import prepare, shared_counts, state_folder
from tests.conftest import ROOT, free_port, serving

ADMIN = {"Authorization": "Bearer admin-key"}


@pytest.fixture
def state(tmp_path, monkeypatch) -> Path:
    """Where this user's state is."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def locked(folder: Path) -> bool:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def test_the_folder_lies_with_the_users_state_locked_until_it_is_removed(state):
    with state_folder() as folder:
        assert folder.parent == state / "zooserve"
        assert folder.stat().st_mode & 0o777 == 0o700
        assert locked(folder)
        (folder / "file").touch()
    assert list(folder.parent.iterdir()) == []


@pytest.mark.parametrize("before", [None, 0o755])
def test_other_users_cannot_open_the_users_folder_and_lock_it(state, before):
    base = state / "zooserve"
    if before is not None:
        base.mkdir(parents=True)
        base.chmod(before)
    with state_folder() as folder:
        assert folder.parent == base
        assert base.stat().st_mode & 0o777 == 0o700


def test_folders_of_servers_that_were_killed_are_removed_and_no_others(state):
    with state_folder() as lives:
        left = lives.parent / "server-killed"
        (left / "deep").mkdir(parents=True)
        other = lives.parent / "notes"
        other.mkdir()
        with state_folder() as folder:
            assert set(lives.parent.iterdir()) == {lives, other, folder}


def test_a_process_that_outlives_its_supervisor_keeps_the_folder(state):
    code = "import subprocess, sys, time; from service.supervisor import state_folder\n"
    code += "with state_folder() as folder:\n"
    code += "    child = subprocess.Popen(['sleep', '60'], close_fds=False)\n"
    code += "    print(child.pid, folder, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as supervisor:
        child, folder = supervisor.stdout.readline().split()
        supervisor.kill()
    with state_folder():
        assert Path(folder).is_dir()
    os.kill(int(child), signal.SIGKILL)
    for _ in range(50):
        if not locked(Path(folder)):
            break
        time.sleep(0.1)
    with state_folder():
        assert not Path(folder).exists()


@pytest.mark.parametrize("home", ["/dev/null/nowhere", "/proc"])
def test_where_no_state_can_be_written_it_lies_in_tmp(home, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", home)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with state_folder() as folder:
        assert folder.parent == tmp_path
        assert locked(folder)
    assert not folder.exists()


def test_a_user_without_a_home_has_it_in_tmp(tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.home.user_state_path", lambda _: Path("~/.local/state/zooserve"))  # older platformdirs
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with state_folder() as folder:
        assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.skipif(not shutil.which("systemd-tmpfiles"), reason="systemd-tmpfiles is not installed")
def test_systemds_cleaner_leaves_it_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", "/dev/null/nowhere")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rules = tmp_path.with_suffix(".conf")
    rules.write_text(f"d {tmp_path} 0700 - - 1s\n")
    (tmp_path / "other" / "shared").mkdir(parents=True)
    with state_folder() as folder:
        (folder / "shared").mkdir()
        (folder / "shared" / "lenet5").touch()
        time.sleep(2.5)
        subprocess.run(["systemd-tmpfiles", "--clean", rules], check=True)
        assert not (tmp_path / "other").exists(), "the cleaner did its work"
        assert (folder / "shared" / "lenet5").exists()


def workers(supervisor: int) -> list[psutil.Process]:
    """The server processes that live."""
    with contextlib.suppress(psutil.Error):
        children = psutil.Process(supervisor).children()
        return [child for child in children if _serves(child)]
    return []


def _serves(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.status() != psutil.STATUS_ZOMBIE and "service.bento:ZooServe" in process.cmdline()
    return False


def wait_for(condition, seconds: float = 60):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return value


def ask(server, path: str, body: bytes | None = None, times: int = 12) -> list[int]:
    """Ask on connections that are open at the same time, so that all processes have some; return the statuses."""
    host = server.url.removeprefix("http://")
    connections = [http.client.HTTPConnection(host, timeout=30) for _ in range(times)]
    for connection in connections:
        connection.request("POST" if body else "GET", path, body)
    answers = [connection.getresponse() for connection in connections]
    statuses = [answer.status for answer in answers if answer.read() is not None]
    for connection in connections:
        connection.close()
    return statuses


def metric(server, name: str) -> float:
    """A sample by its name and labels, as /metrics has it; nan where it is not there."""
    answer = httpx.get(f"{server.url}/metrics", trust_env=False, timeout=30)
    assert answer.status_code == 200, answer.text
    found = re.findall(rf"^{re.escape(name)} (\S+)$", answer.text, re.M)
    return float(found[0]) if found else float("nan")


@pytest.mark.parametrize("count", [1, 2])
def test_server_processes_answer_and_end_when_their_supervisor_is_killed(models, tmp_path, state, count):
    digit = (models / "lenet5/1/golden/digit_7.png").read_bytes()
    port = free_port()
    settings = {"ZOOSERVE_MODELS": str(models), "ZOOSERVE_LOAD": "lenet5", "ZOOSERVE_WORKERS": str(count)}
    with serving(tmp_path / "log", port=port, ZOOSERVE_DRAIN_S="1.5", **settings) as server:
        server.wait(200)
        wait_for(lambda: server.log.read_text().count("1 of 1 models are ready") == count)
        left = workers(server.process.pid)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            slow = pool.submit(_slowly, server.url, digit)
            time.sleep(0.3)
            server.process.kill()
            server.process.wait()
            time.sleep(0.3)
            assert set(ask(server, "/readyz", times=4)) == {503}, "a load balancer is told"
            assert set(ask(server, "/v1/classify", digit, times=4)) == {200}
            assert slow.result() == 200
        psutil.wait_procs(left, 20)
        assert not any(_serves(process) for process in left)
    with serving(tmp_path / "again", port=port, **settings) as server:
        server.wait(200)
        assert len(list((state / "zooserve").iterdir())) == 1, "the first one's folder is gone"


def _slowly(url: str, body: bytes) -> int:
    """Send a request in two parts, half a second apart."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    connection.putrequest("POST", "/v1/classify")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders()
    connection.send(body[:10])
    time.sleep(0.8)
    connection.send(body[10:])
    return connection.getresponse().status


def test_one_that_does_not_end_is_killed():
    code = "import os, signal, time; from service import supervisor; from service.settings import Settings\n"
    code += "signal.signal(signal.SIGTERM, signal.SIG_IGN); supervisor._MARGIN_S = 0.5\n"
    code += "reading, writing = os.pipe(); os.environ['ZOOSERVE_SUPERVISOR'] = str(reading)\n"
    code += "supervisor.end_with_supervisor(Settings(drain_s=0.1, timeout_ms=100)); os.close(writing); time.sleep(60)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=30, check=False)
    assert done.returncode == -signal.SIGKILL


def test_a_single_process_shares_no_counts(monkeypatch):
    chosen = ("ZOOSERVE_FRONTS", "ZOOSERVE_ENGINES", "ZOOSERVE_MAX_CONNECTIONS")
    for name in ("ZOOSERVE_COUNTS", "ZOOSERVE_SUPERVISOR", "ZOOSERVE_SHARED", *chosen):
        monkeypatch.setenv(name, "")  # so that what is set here is gone afterwards
        monkeypatch.delenv(name)
    prepare(Settings(workers=1))
    assert shared_counts(0) is None
    prepare(Settings(workers=2))
    assert len(shared_counts(1).processes()) == 1


@pytest.mark.parametrize("moment", [0.0, 1.0])
def test_they_end_while_they_load_too(models, tmp_path, state, moment):
    settings = {"ZOOSERVE_MODELS": str(models), "ZOOSERVE_WORKERS": "2"}
    with serving(tmp_path / "log", **settings) as server:
        left = wait_for(lambda: len(found := workers(server.process.pid)) == 2 and found)
        time.sleep(moment)
        server.process.kill()
        server.process.wait()
        psutil.wait_procs(left, 40)
        assert not any(_serves(process) for process in left), server.log.read_text()


@pytest.mark.timeout(120)
def test_one_that_is_killed_while_it_loads_leaves_no_gauges_and_no_files(models, tmp_path, state):
    settings = {"ZOOSERVE_MODELS": str(models), "ZOOSERVE_LOAD": "mobilenet_v2", "ZOOSERVE_WORKERS": "2"}
    with serving(tmp_path / "log", **settings) as server:
        server.wait(200)
        wait_for(lambda: server.log.read_text().count("1 of 1 models are ready") == 2)
        first = workers(server.process.pid)
        files = sorted(file for file in state.rglob("*"))
        worker = first[0]
        said = "was started in place of one that ended"
        for number in range(1, 4):
            worker.kill()
            old = {*first, worker}
            (worker,) = wait_for(lambda old=old: [each for each in workers(server.process.pid) if each not in old])
            first.append(worker)
            wait_for(lambda number=number: server.log.read_text().count(said) == number)
            wait_for(lambda: metric(server, "zooserve_processes") == 2)  # its gauges are there, its model is not
        wait_for(lambda: set(ask(server, "/readyz")) == {200})
        time.sleep(1)
        assert server.log.read_text().count(said) == 3
        assert metric(server, "zooserve_process_restarts_total") == 3
        for _ in range(6):
            assert metric(server, "zooserve_processes") == 2
            assert metric(server, 'zooserve_model_ready{model="mobilenet_v2"}') == 1
            assert metric(server, 'zooserve_model_state{model="mobilenet_v2",state="loading"}') == 0
            assert metric(server, 'zooserve_queue_depth{model="mobilenet_v2"}') == 0
        assert sorted(file for file in state.rglob("*")) == files


@pytest.mark.timeout(120)
@pytest.mark.parametrize("how", ["moved", "removed"])
def test_a_folder_that_is_cleaned_away_changes_nothing(models, tmp_path, state, how):
    digit = (models / "lenet5/1/golden/digit_7.png").read_bytes()
    counted = 'zooserve_requests_total{code="200",model="lenet5",task="classify"}'
    settings = {"ZOOSERVE_LOAD": "lenet5", "ZOOSERVE_WORKERS": "2", "ZOOSERVE_WATCH_S": "0.2"}
    settings |= {"ZOOSERVE_MODELS": str(models), "ZOOSERVE_ADMIN_KEYS": "admin-key"}

    def clean() -> None:
        for number, folder in enumerate((state / "zooserve").glob("server-*")):
            if how == "moved":
                folder.rename(tmp_path / f"{folder.name}-{number}-{time.monotonic_ns()}")
            else:
                shutil.rmtree(folder)

    with serving(tmp_path / "log", **settings) as server:
        server.wait(200)
        wait_for(lambda: server.log.read_text().count("1 of 1 models are ready") == 2)
        assert ask(server, "/v1/classify", digit) == [200] * 12
        assert metric(server, counted) == 12
        clean()
        assert metric(server, counted) == 12
        assert ask(server, "/v1/classify", digit) == [200] * 12
        assert {metric(server, counted) for _ in range(6)} == {24}

        assert server.client.post("/v1/models/lenet5/unload", headers=ADMIN).status_code == 200
        wait_for(lambda: set(ask(server, "/v1/classify", digit)) == {404})
        clean()
        time.sleep(1)
        assert set(ask(server, "/v1/classify", digit)) == {404}, "what was unloaded stays so"
        assert server.client.post("/v1/models/lenet5/load", headers=ADMIN).status_code == 200
        wait_for(lambda: set(ask(server, "/v1/classify", digit)) == {200})

        clean()
        before = metric(server, counted)
        killed = workers(server.process.pid)[0]
        killed.kill()
        wait_for(lambda: len(found := workers(server.process.pid)) == 2 and killed not in found)
        wait_for(lambda: metric(server, "zooserve_processes") == 2)
        wait_for(lambda: set(ask(server, "/readyz")) == {200})
        assert metric(server, counted) == before
