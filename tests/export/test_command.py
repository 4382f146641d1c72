"""`zooserve export`: what it says, what it leaves alone, and what it does about errors."""

import errno
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile

import pytest
from click.testing import CliRunner

from export import pipeline
from export.command import export
from zoo import catalog
from zoo.errors import ExportError, UnknownModelError
from zoo.libraries import find_card
from zoo.store import Store


def run(*arguments: str):
    return CliRunner().invoke(export, [str(argument) for argument in arguments])


def test_help_has_examples():
    result = run("--help")
    assert result.exit_code == 0
    assert "zooserve export resnet50 vit_b_16" in result.output


@pytest.mark.parametrize("arguments", [[], ["--default", "--all"], ["mobilenet_v2", "--all"]])
def test_one_way_to_say_what(arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert "say what to export: NAME..., --default or --all" in result.output


@pytest.fixture
def store(models, tmp_path):
    """A copy of two published models."""
    for name in ("mobilenet_v2", "deeplabv3_mobilenet_v2"):
        shutil.copytree(models / name, tmp_path / "models" / name)
    return tmp_path / "models"


def test_models_that_are_up_to_date_are_left_alone(store):
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    result = run("mobilenet_v2", "deeplabv3_mobilenet_v2", "--models", store)
    assert result.exit_code == 0
    assert result.output == "".join(
        f"{name} 1: up to date, {store / name / '1'}\n" for name in ("mobilenet_v2", "deeplabv3_mobilenet_v2")
    )
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == before


def test_a_second_run_does_not_import_torch(store):
    program = (
        "import sys; from export.command import export\n"
        f"export(['mobilenet_v2', '--models', {str(store)!r}], standalone_mode=False)\n"
        "sys.exit('torch' in sys.modules or 'onnx' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_damaged_folder_is_exported_again(store):
    graph = store / "deeplabv3_mobilenet_v2" / "1" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    result = run("deeplabv3_mobilenet_v2", "--models", store, "--json")
    (report,) = json.loads(result.stdout)
    assert (report["name"], report["state"], report["version"]) == ("deeplabv3_mobilenet_v2", "exported", "1")
    assert report["seconds"].keys() == {"fetch", "build", "convert", "parity", "golden", "publish"}
    assert report["parity"]["mask"] <= 1e-3
    assert report["size"] == graph.stat().st_size
    assert Store(store).verify("deeplabv3_mobilenet_v2", "1")


def test_force_and_default(store, monkeypatch):
    asked = []

    def refuse(card, *_, **__):
        asked.append(card.name)
        raise ExportError("not now")

    monkeypatch.setattr(pipeline, "export_model", refuse)
    assert run("mobilenet_v2", "--models", store, "--force").exit_code == 1
    assert asked == ["mobilenet_v2"]
    asked.clear()
    assert run("--default", "--models", store).exit_code == 1
    default = {card.name for card in catalog.cards() if card.default}
    assert set(asked) == default - {"mobilenet_v2", "deeplabv3_mobilenet_v2"}


def test_a_full_temporary_folder_is_named(store, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pipeline, "export_model", refuse)
    result = run("lenet5", "--models", store)
    assert result.exit_code == 1
    assert f"lenet5: No space left on device: graphs are written to {tempfile.gettempdir()} first" in result.stderr


@pytest.mark.parametrize("which", ["--default", "--all"])
def test_a_card_that_is_not_valid_does_not_stop_the_others(store, monkeypatch, which):
    monkeypatch.setenv("ZOOSERVE_CARDS", str(store.parent))
    (store.parent / "half.toml").write_text('name = "half"\n')
    monkeypatch.setattr("export.command.is_current", lambda *_: True)
    reports = {one["name"]: one for one in json.loads(run(which, "--models", store, "--json").stdout)}
    assert "half.toml" in reports.pop("half")["error"]
    assert {"mobilenet_v2", "lenet5"} <= reports.keys()
    assert {one["state"] for one in reports.values()} == {"up to date"}


def test_one_failure_does_not_stop_the_others(store):
    result = run("resnet51", "mobilenet_v2", "vit_h_14", "--models", store)
    assert result.exit_code == 1
    assert result.stdout == f"mobilenet_v2 1: up to date, {store / 'mobilenet_v2' / '1'}\n"
    assert "resnet51: there is no model 'resnet51'" in result.stderr
    assert "near: resnet50" in result.stderr
    assert "\nvit_h_14: 2.4 GiB of weights" in result.stderr


def test_an_unforeseen_error_is_said_and_does_not_stop_the_others(store, monkeypatch):
    def break_down(*_, **__):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(pipeline, "export_model", break_down)
    result = run("u2netp", "mobilenet_v2", "--models", store, "--json")
    assert result.exit_code == 1
    failed, left_alone = json.loads(result.stdout)
    assert failed["error"] == "ZeroDivisionError: by zero"
    assert left_alone["state"] == "up to date"
    assert "break_down" in run("u2netp", "--models", store, "--verbose").stderr


@pytest.fixture
def without_torch(monkeypatch):
    """As in an installation that only serves."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else find(name, *rest))


@pytest.mark.parametrize("arguments", [["--precision", "int8"], ["--force"], ["--precision", "fp16", "--force"]])
def test_without_torch_the_command_that_installs_it_is_named(store, without_torch, arguments):
    result = run("mobilenet_v2", "--models", store, *arguments)
    assert result.exit_code == 1
    assert "converting needs torch, which is not installed: pip install -e '.[export]'" in result.stderr
    assert "ModuleNotFoundError" not in result.output


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("tflite.Model", "u2netp: this needs tflite.Model, which is not installed: pip install -e '.[export]'"),
        ("sqlite9", "ModuleNotFoundError: no module"),
    ],
)
def test_a_library_that_is_missed_late_is_named_too(store, monkeypatch, module, said):
    def need(*_, **__):
        raise ModuleNotFoundError("no module", name=module)

    monkeypatch.setattr(pipeline, "export_model", need)
    assert said in run("u2netp", "--models", store).stderr


def test_variants_that_are_up_to_date_need_no_torch(store):
    """Neither to be found, nor to be imported."""
    assert run("mobilenet_v2", "--models", store, "--precision", "int8").exit_code == 0
    program = (
        "import sys; from export.command import export\n"
        f"export(['mobilenet_v2', '--precision', 'int8', '--models', {str(store)!r}], standalone_mode=False)\n"
        "sys.exit('torch' in sys.modules or 'onnx' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, timeout=60, capture_output=True, text=True)
    assert "mobilenet_v2-int8 1: up to date" in done.stdout


def test_cards_come_before_patterns():
    assert find_card("mobilenet_v2") == catalog.find("mobilenet_v2")
    assert find_card("resnet50").sources["weights"].sha256_prefix == "11ad3fa6"
    with pytest.raises(UnknownModelError, match="resnet51"):
        find_card("resnet51")
