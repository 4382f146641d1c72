"""`python -m loadtests.gpu`: all of it on the CPU provider, quickly, as it would run on a GPU."""

import json
import subprocess
import sys
from pathlib import Path

import onnxruntime as ort
import pytest

ROOT = Path(__file__).parents[3]


def gpu(*arguments):
    command = [sys.executable, "-m", "loadtests.gpu", *map(str, arguments)]
    return subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=200)


def test_all_parts_on_the_cpu(models, tmp_path):
    out, markdown = tmp_path / "gpu.json", tmp_path / "gpu.md"
    done = gpu(
        "--models",
        models,
        "--provider",
        "cpu",
        "--quick",
        "--only",
        "mobilenet_v2",
        "--out",
        out,
        "--markdown",
        markdown,
    )
    assert done.returncode == 0, done.stderr
    written = json.loads(out.read_text())
    rows = written["details"]["rows"]
    assert {row["part"] for row in rows} == {"decode", "session", "http"}
    failed = [row for row in rows if row["rate"] is None]
    assert [row["way"] for row in failed] == ["CUDA graphs"]
    assert "fell back" in failed[0]["note"]
    ways = {(row["part"], row["way"], row["load"]) for row in rows}
    assert ("session", "IOBinding", "batch 4") in ways
    assert ("http", "fp16, workers 1", "concurrency 4") in ways
    assert all(row["rate"] > 0 and row["p50"] <= row["p99"] for row in rows if row not in failed)
    assert not any("errors" in row["note"] for row in rows)
    assert list(written["details"]["nodes"]["mobilenet_v2"]) == ["CPUExecutionProvider"]
    assert markdown.read_text().count("\n|") == len(rows) + 1
    assert written["versions"]["onnxruntime"] == ort.__version__


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="this ONNX Runtime has CUDA")
def test_without_a_gpu_it_refuses_with_a_sentence(models):
    done = gpu("--models", models)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: this ONNX Runtime")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "vgg99"], "zooserve export vgg99"),
        (["--models", "tests"], "holds no models"),
        (["--batches", "1,x"], "whole numbers"),
        (["--parts", "sessions"], "the parts are"),
    ],
)
def test_what_is_wrong_is_said(models, arguments, words):
    done = gpu("--provider", "cpu", *([] if "--models" in arguments else ["--models", models]), *arguments)
    assert done.returncode == 2
    assert words in done.stderr
