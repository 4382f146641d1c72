"""Without the extra `loadtests` every command shows its help, and says before any load what is missing."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from zoo.extras import install

ROOT = Path(__file__).parents[2]
LIBRARIES = ("locust", "gevent", "matplotlib", "mlperf_loadgen", "grpc", "atheris")
BLOCKED = f"""
import runpy, sys
sys.modules |= dict.fromkeys({LIBRARIES})
sys.path.insert(0, {str(ROOT)!r})
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""
FILES = [path.relative_to(ROOT) for path in (ROOT / "loadtests").rglob("*.py")]
COMMANDS = sorted(
    ".".join(path.with_suffix("").parts).removesuffix(".__main__")
    for path in FILES
    if not {"peers", ".venvs"} & set(path.parts)
    and re.search(r"^@click\.(command|group)", (ROOT / path).read_text(), re.MULTILINE)
)


def run(*arguments):
    command = [sys.executable, "-c", BLOCKED, *arguments]
    return subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_the_commands_are_found():
    assert {"loadtests.loadgen", "loadtests.soak", "loadtests.measure", "loadtests.compare"} < set(COMMANDS)


@pytest.mark.parametrize("command", [*COMMANDS, "loadtests.loadgen capacity", "loadtests.loadgen accuracy"])
def test_help(command):
    done = run(*command.split(), "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: ")


@pytest.mark.parametrize(
    "command",
    [
        "loadtests.soak --minutes 1 --plot soak.svg --url {url}",
        "loadtests.compare --peers none --plot compare.svg",
        "loadtests.loadgen singlestream --url {url}",
        "loadtests.locustfile",
    ],
)
def test_what_is_missing_is_named_before_any_load(command, tiny):
    done = run(*command.format(url=f"http://127.0.0.1:{tiny.address.port}").split())
    assert done.returncode in (1, 2)
    assert install("loadtests") in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
    assert not tiny.paths
