"""The section on LoadGen of docs/load-testing.md: each command runs and prints its lines."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from evaluation.folder import read_zoo
from tests.conftest import serving
from tests.loadtests.test_recipes import pattern
from zoo.store import Store

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs/load-testing.md").read_text()
SECTION = re.search(r"^## LoadGen\n.*?(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)[0]
BLOCKS = re.findall(r"```sh\n(.*?)```(?:\n\n```text\n(.*?)```)?", SECTION, re.DOTALL)
# For a moment, and with a bound that is never kept where the document shows one that was not, else always kept.
QUICK = {
    "server": "--qps 20 --bound-ms 0.1 --seconds 0.5 --min-queries 20",
    "capacity": "--bound-ms 20000 --qps 150 --seconds 0.5 --min-queries 5 --search-seconds 0.2 --tests 1 --minutes 0.1",
}


@pytest.fixture(scope="module")
def run(models, tmp_path_factory):
    """Runs a block of the document beside a folder of digits; returns the exit code and what was printed."""
    folder = tmp_path_factory.mktemp("folder")
    card = Store(models).latest("lenet5").card
    for number, example in enumerate(read_zoo("mnist", card).examples[:40]):
        path = folder / "digits" / card.labels[example.truth] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(example.read())
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "ZOOSERVE_MODELS": str(models),
    }
    with serving(folder / "log", ZOOSERVE_MODELS=str(models), ZOOSERVE_LOAD="lenet5") as server:
        server.wait(200)

        def run(command):
            command = command.replace("http://localhost:3000", server.url).replace("--quiet 30", "")
            for name, options in QUICK.items():
                command = re.sub(rf"(loadgen {name} .*)", rf"\1 {options}", command)
            done = subprocess.run(
                ["sh", "-ec", command], check=False, cwd=folder, env=environment, capture_output=True, text=True
            )
            return done.returncode, done.stdout, done.stderr

        yield run


@pytest.mark.parametrize(("command", "answer"), BLOCKS, ids=[block[0].split()[3] for block in BLOCKS])
def test_a_command_runs_and_prints_what_is_shown(run, command, answer):
    returncode, printed, said = run(command)
    assert "Traceback" not in said
    assert returncode == (1 if "INVALID" in answer else returncode), said
    assert returncode in (0, 1), said
    printed = printed.replace("bound, late", "bound")  # on a busy machine
    for line in filter(str.strip, answer.splitlines()):
        assert pattern(line).search(printed), f"{line!r} is not in\n{printed}{said}"
    if "capacity" in command:
        assert "capacity" in printed.lower(), said


def test_every_command_of_loadgen_is_named():
    from loadtests.loadgen.__main__ import main

    assert all(f"`{name}`" in SECTION for name in main.commands)
