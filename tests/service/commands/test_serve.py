"""`zooserve serve` ends at once where it cannot serve as it was told to, and leaves nothing running."""

import os
import subprocess
import sys
from pathlib import Path

import onnxruntime
import psutil
import pytest

from service.engine import probe
from service.settings import SettingError
from tests.conftest import free_port, serving

ROOT = Path(__file__).parents[3]
NO_CUDA = "CUDAExecutionProvider" not in onnxruntime.get_available_providers()


def start(program, *arguments, **environment):
    """Run a program that is to end by itself; return its exit code, all it printed, and what it left running."""
    command = [str(Path(sys.executable).with_name(program)), *arguments]
    mark = f"ZOOSERVE_URL=http://{free_port()}"  # in the environment of every process that it starts
    name, value = mark.split("=")
    process = subprocess.run(
        command,
        check=False,
        cwd=ROOT,
        env=os.environ | {name: value} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    left = []
    for other in psutil.process_iter():
        try:
            left += [other] if other.environ().get(name) == value else []
        except psutil.Error:
            continue
    return process.returncode, " ".join(process.stdout.split()), left


@pytest.mark.skipif(not NO_CUDA, reason="this ONNX Runtime may have a GPU")
@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("program", ["zooserve", "bentoml"])
def test_a_device_that_cannot_be_had_ends_the_start(models, program, workers):
    arguments = ["serve"] if program == "zooserve" else ["serve", "service.bento:ZooServe"]
    code, printed, left = start(
        program,
        *arguments,
        "--port",
        str(free_port()),
        ZOOSERVE_DEVICE="cuda",
        ZOOSERVE_WORKERS=workers,
        ZOOSERVE_MODELS=str(models),
    )
    assert code == 1
    assert "ZOOSERVE_DEVICE=cuda, but this ONNX Runtime was built without CUDAExecutionProvider" in printed
    assert "models are ready" not in printed
    assert left == []


@pytest.mark.parametrize(
    ("visible", "gpus", "says"),
    [
        (None, 0, "no GPU is visible"),
        ("9", 0, "CUDA_VISIBLE_DEVICES=9 names none"),
        (None, 1, "cuda: GPU 0: fell back"),
    ],
)
def test_a_gpu_that_does_not_answer_is_told_with_its_reason(monkeypatch, visible, gpus, says):
    """The trial ends as it does where ONNX Runtime has CUDA and the machine has no GPU."""
    probe.check_device.cache_clear()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(probe, "gpu_count", lambda: gpus)
    printed = "Failed to load libcublas.so.13\nGPU 0: fell back"
    ended = subprocess.CompletedProcess([], 4, printed, "")
    monkeypatch.setattr(probe.subprocess, "run", lambda *_, **__: ended)
    with pytest.raises(SettingError, match=says) as refused:
        probe.check_device("cuda")
    assert "libcublas" not in str(refused.value)
    probe.check_device.cache_clear()


def test_the_trial_runs_a_graph():
    assert probe._main("cpu", [0]) == 0


@pytest.mark.parametrize("program", ["zooserve", "bentoml"])
def test_a_misspelt_key_ends_the_start(models, program):
    arguments = ["serve"] if program == "zooserve" else ["serve", "service.bento:ZooServe"]
    code, printed, left = start(
        program, *arguments, "--port", str(free_port()), ZOOSERVE_APIKEYS="sesame", ZOOSERVE_MODELS=str(models)
    )
    assert code == 1
    assert "ZOOSERVE_APIKEYS: is ZOOSERVE_API_KEYS meant?" in printed
    assert "sesame" not in printed
    assert left == []


def test_all_processes_together_name_an_unknown_variable_once(models, tmp_path):
    log = tmp_path / "log"
    settings = {"ZOOSERVE_MODELS": str(models), "ZOOSERVE_LOAD": "lenet5", "ZOOSERVE_WORKERS": "2"}
    with serving(log, ZOOSERVE_MAX_BATHC="4", ZOOSERVE_API_KEY="sesame", **settings) as server:
        server.wait(200)
    text = " ".join(log.read_text().split())
    assert text.count("ZOOSERVE_MAX_BATHC is ignored: there is no such setting. Is ZOOSERVE_MAX_BATCH meant?") == 1
    assert text.count("ZOOSERVE_API_KEY is what clients send") == 1
