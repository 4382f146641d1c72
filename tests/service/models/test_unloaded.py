"""Which models were loaded and unloaded by hand: the same for several processes, that follow each other."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.models.unloaded import Unloaded
from service.supervisor import new_memory
from tests.conftest import ROOT

OTHER = """
import sys
from pathlib import Path
from service.models.unloaded import Unloaded
unloaded = Unloaded(Path(sys.argv[1]))
for line in sys.stdin:
    print(eval(line), flush=True)
"""


@pytest.fixture(params=["memory", "file"])
def path(request, tmp_path, monkeypatch):
    """Memory that processes inherit, or a file where there is no such memory."""
    if request.param == "file":
        monkeypatch.delattr(os, "memfd_create")
        monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    path = new_memory()
    yield Path(path)
    if request.param == "memory":
        os.close(int(path.rpartition("/")[2]))


@pytest.fixture
def other(path):
    """Another process: what it is told to evaluate."""
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER, path],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, close_fds=False,
    )  # fmt: skip

    def ask(expression: str) -> str:
        process.stdin.write(expression + "\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    ask.process = process
    yield ask
    process.kill()
    process.communicate()


def test_one_process_has_its_own():
    unloaded = Unloaded(None)
    unloaded.add("m")
    assert "m" in unloaded
    unloaded.discard("m")
    assert "m" not in unloaded
    unloaded.ask_for("m")
    assert list(unloaded.asked_for()) == ["m"]
    assert not unloaded.changed()
    assert unloaded.wait_for_others(0)
    assert not unloaded.started
    assert unloaded.awaits("m")
    unloaded.note_started()
    unloaded.note_served(["m"])
    assert unloaded.started
    assert (unloaded.awaits("m"), unloaded.awaits("added")) == (True, False)


def test_processes_see_what_others_did(path, other):
    here = Unloaded(path)
    here.add("m")
    assert other("'m' in unloaded, 'n' in unloaded") == "(True, False)"
    assert other("unloaded.discard('m')") == "None"
    assert "m" not in here
    assert other("unloaded.ask_for('m')") == "3"
    assert here.asked_for() == {"m": 3}
    here.add("m")
    assert other("unloaded.asked_for(), 'm' in unloaded") == "({}, True)"
    assert "m" in Unloaded(path), "for one that comes later"


def test_what_changed_is_said_once(path, other):
    here = Unloaded(path)
    assert not here.changed()
    other("unloaded.add('m')")
    assert here.changed()
    assert not here.changed()
    other("unloaded.discard('n')")
    assert not here.changed(), "there was nothing to discard"
    here.followed()
    assert other("unloaded.changed(), unloaded.changed()") == "(True, False)"


def test_others_are_waited_for_until_they_have_followed(path, other):
    here = Unloaded(path)
    other("unloaded.followed()")
    here.add("m")
    assert not here.wait_for_others(0.1)
    other("unloaded.changed()")
    assert not here.wait_for_others(0.1), "it is at it"
    other("unloaded.followed()")
    assert here.wait_for_others(0)
    here.add("n")
    other.process.kill()
    other.process.wait()
    assert here.wait_for_others(0), "those that ended are not waited for"


def test_a_process_that_is_killed_leaves_nothing_locked(path, other):
    other.process.stdin.write("[unloaded.ask_for(f'model {n}') for n in range(100_000)]\n")
    other.process.stdin.flush()
    here = Unloaded(path)
    while "model 50" not in here.asked_for():
        assert other.process.poll() is None
    other.process.kill()
    other.process.wait()
    here.add("m")
    assert "m" in here
    assert "model 50" in here.asked_for()


def test_its_successor_knows_that_one_had_started(path, other):
    assert not Unloaded(path).started
    other("unloaded.note_started()")
    assert Unloaded(path).started
    Unloaded(path).note_served(["m"])
    assert other("unloaded.awaits('added')") == "False"
    other("unloaded.note_served(['added'])")
    assert Unloaded(path).awaits("m")
    assert Unloaded(path).awaits("added"), "it answers by now"
