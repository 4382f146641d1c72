"""`python -m loadtests.gpu`: on the CPU provider, on a simulated GPU, and with what is wrong."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[3]


def gpu(*arguments, **environment):
    command = [sys.executable, "-m", "loadtests.gpu", *map(str, arguments)]
    return subprocess.run(
        command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=280, env=os.environ | environment
    )


def rows_of(path):
    return json.loads(path.read_text())["details"]["rows"]


def test_what_a_cpu_can_do(models, tmp_path):
    out, markdown = tmp_path / "gpu.json", tmp_path / "gpu.md"
    wanted = ["--steps", "2,3,7", "--provider", "cpu", "--quick", "--model", "mobilenet_v2"]
    done = gpu("--models", models, *wanted, "--json", out, "--markdown", markdown)
    assert done.returncode == 0, done.stderr
    rows = rows_of(out)
    assert {row["step"] for row in rows} == {2, 3, 7}
    served = [row for row in rows if row["step"] == 7 and row["way"] == "one process"]
    assert [row["load"] for row in served] == ["1 client", "4 clients"]
    assert all(row["rate"] > 0 and row["p50"] <= row["p99"] and not row["note"] for row in served), served
    assert {row["provider"] for row in served} == {"CPUExecutionProvider"}
    fronts = [row for row in rows if row["step"] == 7 and row["way"] == "1 front"]
    assert fronts
    assert all(row["rate"] for row in fronts), fronts
    assert all("needs --provider cuda" in row["note"] for row in rows if row["step"] == 3)
    assert {row["card"] for row in rows} == {"-"}
    assert markdown.read_text().count("\n|") == len(rows) + 1
    assert markdown.read_text() in done.stdout


def test_all_steps_on_a_simulated_gpu_that_is_never_taken_for_one(cuda_stub, models, tmp_path):
    out = tmp_path / "gpu.json"
    path = os.pathsep.join((str(cuda_stub.packages), str(ROOT), str(ROOT / "client")))
    stub = {"PYTHONPATH": path, "LD_LIBRARY_PATH": str(cuda_stub.libraries), "STUB_RUN_US": "1:100,32:400"}
    wanted = ["--steps", "1,2,3,4,5,6,8", "--quick", "--model", "lenet5"]
    done = gpu("--models", models, *wanted, "--json", out, **stub)
    assert done.returncode == 0, done.stderr
    rows = rows_of(out)
    on_gpu = [row for row in rows if row["provider"] == "CUDAExecutionProvider"]
    assert {row["card"] for row in on_gpu} == {"stub"}
    assert all(row["card"] == "-" for row in rows if row not in on_gpu)
    measured = {row["step"] for row in on_gpu if row["rate"]}
    assert measured == {3, 4, 5, 6}
    notes = {row["way"]: row["note"] for row in rows}
    assert notes["convolution"].startswith("WrongError: CUDAExecutionProvider answers")
    assert notes["answers of CUDA and of the CPU"].startswith("WrongError")
    assert re.search("gpu-jpeg|nvImageCodec", notes["GPU"])
    assert "NoRoomError" in notes["out of memory"]
    assert "batches of 1, 32 again" in notes["out of memory"]
    assert "BrokenDeviceError" in notes["a broken context"]
    assert {row["way"] for row in on_gpu if row["step"] == 6} == {"blocking", "spinning"}
    assert "These are no figures of a GPU" in done.stdout
    assert "does not compute rightly" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_whenever_it_is_killed_its_file_is_whole_and_its_processes_end(models, tmp_path, number):
    out = tmp_path / "gpu.json"
    wanted = ["--steps", "2", "--provider", "cpu", "--model", "lenet5", "--seconds", "0.5"]
    command = [sys.executable, "-m", "loadtests.gpu", "--models", str(models), *wanted, "--json", str(out)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        until(out.exists)
        steps = psutil.Process(process.pid).children()
        process.send_signal(number)
    assert rows_of(out)[0]["rate"] > 0
    assert steps
    until(lambda: not any(step.is_running() and step.status() != psutil.STATUS_ZOMBIE for step in steps))


def until(true, seconds=30):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "vgg99"], "zooserve export vgg99"),
        (["--models", "tests"], "holds no model"),
        (["--steps", "1,9"], "the steps are"),
        (["--json", "README.md/gpu.json"], "is no folder"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_measured(models, arguments, words):
    done = gpu(*([] if "--models" in arguments else ["--models", models]), *arguments)
    assert done.returncode == 2
    assert words in done.stderr


def test_help_names_all_steps():
    text = gpu("--help").stdout
    assert all(f"  {number}  " in text for number in range(1, 9))
    assert "--steps 1,3" in text
