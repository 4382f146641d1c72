"""docs/load-testing.md: how to start, Locust and the soak. Each command runs, and prints the words that are shown."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from zoo.extras import install

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/load-testing.md").read_text()
README = (ROOT / "README.md").read_text()
SECTIONS = re.findall(r"^## (?:Locust|The soak)\n.*?(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
BLOCKS = re.findall(r"```sh\n(.*?)```\n\n```text\n(.*?)```", "".join(SECTIONS), re.DOTALL)
FIGURE = re.compile(r"[\d.]+")


def run(command, folder, server):
    """Run a command of the documents, in a folder with what it names, against a server of the tests."""
    for name in ("loadtests", "Makefile"):
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    command = command.replace("http://localhost:3000", server.url)
    done = subprocess.run(
        ["sh", "-ec", command], check=False, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    assert "Traceback" not in done.stderr
    return done


def words(line):
    """What a line says, without its figures and the width of its columns."""
    return " ".join(FIGURE.sub("#", line).split())


@pytest.mark.parametrize(("command", "answer"), BLOCKS, ids=[" ".join(block[0].split()[:3]) for block in BLOCKS])
def test_a_command_prints_what_is_shown(server, tmp_path, command, answer):
    done = run(command, tmp_path, server)
    assert done.returncode == 0, done.stderr
    printed = [words(line) for line in (done.stderr + done.stdout).splitlines()]
    for line in answer.strip().splitlines():
        assert any(words(line) in each for each in printed), (line, done.stdout, done.stderr)


def test_all_commands_are_run():
    assert len(BLOCKS) == sum(section.count("```sh") for section in SECTIONS) == 3


def make(*arguments, **environment):
    """Call make as if the extra were installed; nothing is installed by a test."""
    venv = Path(sys.executable).parent.parent
    done = [f"--assume-old={venv}/{stamp}" for stamp in (".serve", ".loadtest")]
    command = ["make", *done, f"VENV={venv}", *arguments]
    return subprocess.run(
        command, check=False, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=120
    )


def test_make_loadtest(server):
    done = make("loadtest", f"URL={server.url}", "ARGS=--seconds 0.3 --windows 3 --clients 1,2")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\| 1 client +\|", done.stdout, re.MULTILINE)
    assert re.search(r"^\| 2 clients +\|", done.stdout, re.MULTILINE)


def test_make_loadtest_without_a_server():
    done = make("loadtest", "PORT=9")
    assert done.returncode == 2
    assert "http://127.0.0.1:9 is not reachable" in done.stderr


@pytest.mark.parametrize("page", [PAGE, README])
def test_the_extra_is_installed_by_the_command_that_the_tools_name(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert install("loadtests") in page
    assert re.search(r"^    make loadtest", page, re.MULTILINE)


def test_every_tool_of_the_table_is_there():
    for name in re.findall(r"python -m (loadtests\.\w+)", PAGE):
        assert any((ROOT / f"{name.replace('.', '/')}{end}").exists() for end in (".py", "/__main__.py")), name
    headings = {re.sub(r"[^\w -]", "", line).lower().replace(" ", "-") for line in re.findall(r"^#+ (.*)", PAGE, re.M)}
    assert set(re.findall(r"\]\(#([\w-]+)\)", PAGE)) <= headings
