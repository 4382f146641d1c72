"""Every parser keeps its promises on what it starts from, and on some seconds of what the fuzzer makes of that.

`FUZZ_MINUTES=60 pytest tests/fuzz` takes an hour for each, `python -m fuzz` one of them. By default three seconds.
"""

import os
import subprocess
import sys

import pytest

from fuzz.oracle import judge
from fuzz.targets import TARGETS
from tests.conftest import ROOT

MINUTES = float(os.environ.get("FUZZ_MINUTES", "0.05"))


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_started_from_is_as_promised(name):
    target = TARGETS[name]
    target.prepare()
    assert list(target.made())
    seeds = list(target.seeds())
    for _, data in seeds:
        judge(target.check, data, target.limit)


@pytest.mark.timeout(60 * (MINUTES + 4) * len(TARGETS))
def test_what_the_fuzzer_makes_is_as_promised(tmp_path):
    pytest.importorskip("atheris", reason="atheris is not installed")
    command = [sys.executable, "-m", "fuzz", "--minutes", str(MINUTES), "--out", str(tmp_path)]
    fuzzed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert fuzzed.returncode == 0, fuzzed.stdout + fuzzed.stderr
    assert fuzzed.stdout.count("as promised") == len(TARGETS)
