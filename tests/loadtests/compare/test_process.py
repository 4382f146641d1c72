"""Servers are started, waited for, and leave nothing behind. Each case runs in a process of its own."""

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[3]
SERVER = str(Path(__file__).with_name("stubborn_server.py"))
HEAD = """
import os, sys
from pathlib import Path
import psutil
from loadtests.target import Target
from loadtests.client import Request, fetch, run
from loadtests.compare.process import ServerError, adopt_orphans, free_port, running

address = Target.at("127.0.0.1", free_port())

def start(*arguments, patience=20.0):
    command = [sys.executable, *arguments, str(address.port)]
    return running(command, folder=Path(sys.argv[1]), environment=dict(os.environ), cores={0},
        log=Path(sys.argv[1], "log"), address=address, ready="/", patience=patience)
"""


def script(tmp_path, body, **environment):
    code = HEAD + textwrap.dedent(body)
    command = [sys.executable, "-c", code, str(tmp_path)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_a_server_and_a_daemon_of_it_end(tmp_path):
    body = f"""
    adopt_orphans()
    with start({SERVER!r}) as seconds:
        assert 0 < seconds < 20
        assert run(fetch(address, Request("GET", "/"))).status == 200
        below = psutil.Process().children(recursive=True)
        assert len(below) == 2, below
        assert all(process.cpu_affinity() == [0] for process in below)
    assert not psutil.Process().children(recursive=True)
    assert os.sched_getaffinity(0) != {0} or os.cpu_count() == 1
    try:
        run(fetch(address, Request("GET", "/")))
    except OSError:
        print("gone", *(process.pid for process in below))
    """
    done = script(tmp_path, body, daemon="1")
    word, *pids = done.stdout.split() or [""]
    assert (word, len(pids)) == ("gone", 2), done.stderr
    assert not any(psutil.pid_exists(int(pid)) for pid in pids)


@pytest.mark.parametrize(
    ("code", "patience", "message"),
    [
        ("import sys; print('no such model'); sys.exit(3)", 20.0, "exit code 3"),
        ("import time; print('no such model', flush=True); time.sleep(60)", 1.0, "did not answer 200 in time"),
    ],
)
def test_a_server_that_does_not_start(tmp_path, code, patience, message):
    body = f"""
    try:
        with start("-c", {code!r}, patience={patience}):
            pass
    except ServerError as error:
        print(error)
    assert not psutil.Process().children(recursive=True)
    """
    begin = time.monotonic()
    done = script(tmp_path, body)
    assert message in done.stdout, done.stderr
    assert "no such model" in done.stdout
    assert time.monotonic() - begin < 30


def test_a_server_that_dies(tmp_path):
    body = f"""
    try:
        with start({SERVER!r}):
            psutil.Process().children()[0].kill()
            psutil.Process().children()[0].wait()
    except ServerError as error:
        print(error)
    """
    done = script(tmp_path, body)
    assert "it died" in done.stdout, done.stderr
    assert "hello" in done.stdout


def test_the_sandbox_has_only_a_loopback_and_its_own_processes(tmp_path):
    (tmp_path / "look.py").write_text(
        textwrap.dedent("""
        import os, socket, sys
        from loadtests.compare import sandbox
        if not sandbox.enter("look", ["an argument"]):
            sys.exit(77)
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
            pass
        print(os.getpid(), [name for _, name in socket.if_nameindex()], sys.argv[1:])
        """)
    )
    environment = {"PYTHONPATH": f"{ROOT}:{tmp_path}", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-m", "look"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode == 77:
        pytest.skip("this machine does not let a process make namespaces")
    assert done.stdout.strip() == "1 ['lo'] ['an argument']", done.stderr
