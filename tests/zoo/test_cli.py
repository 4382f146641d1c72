"""The command line: lists, shows, verifies, and says what is wrong in one sentence."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from importlib.metadata import EntryPoint, version
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner, Result

import zoo.cli
from tests.conftest import ROOT, free_port
from zoo import catalog
from zoo.cli import main
from zoo.pipeline_card import zoo_pipelines
from zoo.sources import address
from zoo.store import Store


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.fixture
def exported(models, make):
    """A store with a model that has a card, one that has none, and a damaged one."""
    for name in ("mobilenet_v2", "own_net", "u2netp"):
        served = make(name)
        Store().publish(served.card, served.files)
    (models / "u2netp/1/card.json").write_text("{")
    return models


def test_list_shows_every_card_and_every_export(exported):
    result = run("list")
    assert result.exit_code == 0
    table, _, libraries = result.stdout.partition("\n\n")
    lines = {line.split()[0]: line for line in table.splitlines()}
    assert lines.keys() == {"NAME", "own_net", *catalog.names(), *zoo_pipelines()}
    assert " ".join(lines["mobilenet_v2"].split()) == "mobilenet_v2 classify BSD-3-Clause 0.0 MB pypi fp32 version 1"
    assert " ".join(lines["yolov4_tiny"].split()).endswith("LicenseRef-Darknet 24.3 MB pypi fp32 not exported")
    assert "damaged" in lines["u2netp"]
    assert "zooserve list torchvision" in libraries


def test_list_prints_json(exported):
    rows = {row["name"]: row for row in json.loads(run("list", "--json").stdout)}
    assert rows["mobilenet_v2"] | {"title": ""} == {
        "name": "mobilenet_v2",
        "task": "classify",
        "title": "",
        "family": "torchvision",
        "licence": "BSD-3-Clause",
        "accept": [],
        "size": 5,
        "sources": {"weights": address(catalog.find("mobilenet_v2").sources["weights"])},
        "mirrors": {},
        "first_downloads": {},
        "precision": "fp32",
        "unmeasured": "",
        "version": "1",
        "state": "version 1",
        "problem": "",
    }
    assert rows["yolov4_tiny"]["version"] is None


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (
            "mobilenet_v2",
            ["crop from a short side of 256", "pkg:pypi/fdet", "version 1", "probabilities  float32 [N, 2]"],
        ),
        ("yolov4_tiny", ["416 x 416 RGB, letterbox", "LicenseRef-Darknet", "no: run `zooserve export yolov4_tiny`"]),
        ("own_net", ["Net", "differs by up to 1e-06 from torch 2.15"]),
        ("u2netp", ["salient", "damaged: ", "card.json"]),
    ],
)
def test_show_prints_the_details_of_a_model(exported, name, parts):
    result = run("show", name)
    assert result.exit_code == 0
    assert [part for part in parts if part not in result.stdout] == []


def test_the_option_models_chooses_the_store(exported, tmp_path):
    result = run("verify", "--models", str(tmp_path / "nothing here"))
    assert result.exit_code == 1
    assert "nothing here holds no models" in result.stderr


def test_show_prints_json(exported):
    shown = json.loads(run("show", "mobilenet_v2", "--json").stdout)
    assert shown["card"]["recipe"]["short_side"] == 256
    assert shown["served"]["sha256"] == Store().latest("mobilenet_v2").card.sha256


def test_verify_accepts_intact_models(exported):
    result = run("verify", "mobilenet_v2", "own_net")
    assert (result.exit_code, result.stdout) == (0, "mobilenet_v2 1: intact\nown_net 1: intact\n")


def test_verify_names_damaged_models(exported):
    (exported / "own_net/1/model.onnx").write_bytes(b"grapH")
    result = run("verify")
    assert result.exit_code == 1
    assert "mobilenet_v2 1: intact" in result.stdout
    assert "model.onnx was changed" in result.stdout
    verified = {row["name"]: row for row in json.loads(run("verify", "--json").stdout)}
    assert [name for name, row in verified.items() if not row["intact"]] == ["own_net", "u2netp"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["show", "mobilenetv2"], 1, "Error: there is no model 'mobilenetv2'. Did you mean mobilenet_v2"),
        (["verify"], 1, "holds no models: run `zooserve export --default`"),
        (["verify", "lenet5"], 1, "holds no lenet5: run `zooserve export lenet5`"),
        (["verfiy"], 2, "No such command 'verfiy'. Did you mean 'verify'?"),
        (["--jsn"], 2, "No such option"),
    ],
)
def test_errors_are_one_sentence_on_standard_error(models, arguments, code, message):
    result = run(*arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert result.stdout == ""


def test_help_and_version(models):
    text = run("--help").stdout
    assert "zooserve predict yolov4_tiny photo.jpg" in text
    assert "List all models" in text
    assert run("--version").stdout.strip() == f"zooserve, version {version('zooserve')}"


@pytest.mark.parametrize("arguments", [["list"], ["--help"], ["verify", "--help"]])
def test_list_and_help_import_no_large_library(models, arguments):
    code = (
        "import sys; from zoo.cli import main; main(sys.argv[1:], standalone_mode=False);"
        "assert not {'torch', 'onnx', 'onnxruntime', 'bentoml', 'cv2'} & sys.modules.keys()"
    )
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(("module", "extra"), [("torch", "export"), ("tflite.Model", "export"), ("onnxruntime", "cpu")])
def test_a_missing_extra_is_named(monkeypatch, tmp_path, module, extra):
    (tmp_path / "needy.py").write_text(f"import {module}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, module.partition(".")[0], None)
    entry = EntryPoint("convert", "needy:convert", "zooserve.commands")
    monkeypatch.setattr(zoo.cli, "_entry_points", lambda: {"convert": entry})
    result = run("convert")
    assert result.exit_code == 1
    # how much of the name Python says depends on what was imported before
    assert f"this needs {module.partition('.')[0]}" in result.stderr
    assert f"which is not installed: pip install -e '.[{extra}]'" in result.stderr


STRAY = ("lost+found", "__MACOSX/1", ".snapshot/1", "Net/1", "empty/1", "evil\n\x1b[31m/1")


@pytest.mark.parametrize("command", ["list", "verify", "show"])
def test_stray_folders_are_skipped_with_a_line_each(exported, command):
    (exported / "u2netp/1/card.json").unlink()
    (exported / "u2netp/1/model.onnx").unlink()
    (exported / "u2netp/1/golden/coffee.png").unlink()
    for name in STRAY:
        (exported / name).mkdir(parents=True)
    (exported / "dangling").symlink_to("nowhere")
    result = run(command, *(["mobilenet_v2"] if command == "show" else []))
    assert result.exit_code == 0
    assert "mobilenet_v2" in result.stdout
    said = [] if command == "show" else result.stderr.splitlines()
    assert [line for line in said if " is skipped: " not in line or not line.isprintable()] == []
    assert len(said) == (0 if command == "show" else len(STRAY) + 2), "those, the dangling link and the empty u2netp/1"


def test_a_folder_that_may_not_be_read_is_skipped(exported):
    """As another user: this one may read everything where the tests run as root."""
    if os.getuid():
        pytest.skip("only root can be somebody else")
    locked = exported / "lost"
    locked.mkdir(mode=0o700)
    (locked / "1").mkdir()
    for folder in (exported, *exported.parents):
        if folder.is_relative_to(tempfile.gettempdir()) and folder != Path(tempfile.gettempdir()):
            folder.chmod(0o755)
    code = f"import os; from pathlib import Path; from zoo.store import Store; store = Store(Path({str(exported)!r}))\n"
    code += (
        "os.setgid(65534); os.setuid(65534); look = store.look(); print([e.name for e in look.entries], look.skipped)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("['mobilenet_v2', 'own_net', 'u2netp']"), done.stderr
    assert "lost is skipped: Permission denied" in done.stdout


UNSHARE = ["unshare", "--map-root-user", "--pid", "--fork", "--kill-child"]
SLOW = """
import click, sys, time, zoo.cli
def slow():
    print("begins", file=sys.stderr, flush=True)
    time.sleep(60)
if sys.argv[1] == "export":
    zoo.cli._load = lambda entry: click.Command(entry.name, callback=slow)
zoo.cli.main()
"""


@pytest.mark.skipif(
    not shutil.which("unshare") or subprocess.run([*UNSHARE, "true"], check=False, capture_output=True).returncode != 0,
    reason="process 1 is started by unshare (Linux, with user namespaces)",
)
@pytest.mark.parametrize(("command", "says"), [("export", "begins"), ("serve", "Serving")])
def test_a_container_that_is_stopped_early_ends_at_once(command, says, tmp_path):
    """As process 1, to which the kernel gives no signal that it does not handle."""
    options = ["--port", str(free_port())] if command == "serve" else []
    with subprocess.Popen(
        [*UNSHARE, sys.executable, "-c", SLOW, command, *options],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=ROOT,
        env=os.environ | {"ZOOSERVE_MODELS": str(tmp_path)},
    ) as outside:  # fmt: skip
        assert any(says in line for line in iter(outside.stderr.readline, ""))
        (first,) = psutil.Process(outside.pid).children()
        first.terminate()
        try:
            assert outside.wait(20) == 128 + signal.SIGTERM
        finally:
            outside.kill()
