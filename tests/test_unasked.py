"""What libraries would send to their makers, or write in the user's folders for that, nobody asked for."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

OFF = ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY")
ELSEWHERE = ("CI", "TF_BUILD", "GITHUB_ACTIONS")  # ONNX Runtime sends nothing from builds


@pytest.mark.parametrize(
    "module",
    ["service.engine.providers", "export.batch", "commands.add", "evaluation.run", "scoring.scorer", "zooserve.models"],
)
def test_onnx_runtime_begins_no_statistics(tmp_path, module):
    environment = {name: value for name, value in os.environ.items() if name not in (*OFF, *ELSEWHERE)}
    environment |= {"XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    code = f"import {module}; import onnxruntime; onnxruntime.get_available_providers()"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)
    assert not list(tmp_path.rglob("*onnxruntime*")), "the device's identifier and the events that are to be sent"


@pytest.mark.parametrize("package", ["service", "export", "commands", "loadtests"])
def test_what_is_set_stays(package):
    code = f"import os, {package}; print(*(os.environ[name] for name in {OFF}))"
    environment = os.environ | dict.fromkeys(OFF, "0")
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=True)
    assert said.stdout.split() == [b"0", b"0"]
