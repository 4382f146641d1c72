"""A small run of the load test: all rows equal the server's, and bad sources end with their reasons."""

import subprocess
import sys

from loadtests.report import read_json
from tests.conftest import ROOT


def test_a_small_run(ray, models, tmp_path):
    out = tmp_path / "out.json"
    command = [sys.executable, "-m", "loadtests.scoring", "--models", str(models), "--model", "lenet5"]
    command += ["--only", "answers", "--only", "bad", "--images", "100", "--json", str(out)]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    goals = [line for line in done.stdout.splitlines() if line.startswith("goal ")]
    assert len(goals) == 6
    assert all(line.endswith(" - met") for line in goals), done.stdout
    assert read_json(out).details["answers lenet5"] == {"equal": 50, "rows": 50}
