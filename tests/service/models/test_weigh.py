"""What a model takes, as a process of its own measures it."""

import os
import subprocess
import sys

import msgspec
import pytest

from service.models.footprint import Footprint
from service.settings import Settings


@pytest.mark.parametrize(("parent", "code"), [(os.getpid, 0), (lambda: 0, 1)], ids=["lives", "has ended"])
def test_it_measures_for_as_long_as_the_process_that_asked_lives(models, parent, code):
    command = [sys.executable, "-m", "service.models.weigh", str(models / "lenet5" / "1"), "1", "0", str(parent())]
    settings = msgspec.json.encode(Settings(device="cpu", max_batch=1))
    ended = subprocess.run(command, check=False, input=settings, capture_output=True, timeout=60)
    assert ended.returncode == code, ended.stderr
    if not code:
        assert msgspec.json.decode(ended.stdout, type=Footprint).seconds > 0
