"""The library is imported offline and without traces."""

import importlib.util
import subprocess
import sys

import pytest

from export.ultralytics.library import import_library
from zoo.errors import ExportError

SCRIPT = """
import os, socket, subprocess
import cv2, numpy, torch
from PIL import Image
from export.ultralytics.library import import_library

def state():
    return dict(os.environ), cv2.getNumThreads(), torch.save, Image.open, numpy.get_printoptions()

def forbidden(*arguments, **options):
    raise SystemExit(f"the import wants {arguments}")

before = state()
socket.socket.connect = socket.getaddrinfo = subprocess.Popen.__init__ = forbidden
library = import_library()
assert library.DetectionModel
assert state() == before
from ultralytics import utils
assert (utils.ONLINE, utils.AUTOINSTALL, utils.SAFE_LOAD) == (False, False, True)
"""


@pytest.mark.skipif(importlib.util.find_spec("ultralytics") is None, reason="the extra `ultralytics` is not installed")
def test_the_import_leaves_nothing_behind(tmp_path):
    home = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, check=False, env=home, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_where_it_is_not_installed_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ultralytics.nn.tasks", None)
    with pytest.raises(ExportError, match=r"pip install -e '.*\[ultralytics\]'"):
        import_library()
