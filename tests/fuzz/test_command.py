"""The command that fuzzes: what it says, finds, shows again and asks for."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from fuzz import __main__ as fuzz
from fuzz import targets
from tests.conftest import ROOT


def test_a_file_is_shown_again(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"not an image")
    said = CliRunner().invoke(fuzz.main, ["jpeg", "--replay", str(path)])
    assert "as promised, in 0." in said.output


def test_a_finding_is_shown_again(tmp_path, monkeypatch):
    def broken(data: bytes) -> None:
        raise ZeroDivisionError

    monkeypatch.setitem(fuzz.TARGETS, "jpeg", targets.TARGETS["jpeg"]._replace(check=broken))
    path = tmp_path / "x"
    path.write_bytes(b"not an image")
    assert isinstance(CliRunner().invoke(fuzz.main, ["jpeg", "--replay", str(path)]).exception, ZeroDivisionError)


@pytest.mark.parametrize("arguments", [["--replay", __file__], ["png", "tiff", "--replay", __file__]])
def test_whose_file_it_is_must_be_said(arguments):
    refused = CliRunner().invoke(fuzz.main, arguments)
    assert refused.exit_code == 2
    assert "name the one parser" in refused.output


def test_without_atheris_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(fuzz, "find_spec", lambda _: None)
    refused = CliRunner().invoke(fuzz.main, [])
    assert refused.exit_code == 1
    assert "pip install" in refused.output


@pytest.mark.parametrize("arguments", [["--minutes", "0"], ["--minutes", "-1"], ["--jobs", "0"]])
def test_a_time_without_end_is_refused(arguments):
    assert CliRunner().invoke(fuzz.main, ["jpeg", *arguments]).exit_code == 2


def test_a_process_that_does_not_end_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "find_spec", lambda _: True)
    monkeypatch.setattr(fuzz, "_PATIENCE", -0.9)
    done = CliRunner().invoke(fuzz.main, ["card", "--minutes", str(1 / 60), "--out", str(tmp_path)])
    assert done.exit_code == 1
    assert "it did not end" in done.output


def test_what_is_found_is_told_and_kept(tmp_path):
    """A parser that breaks its promise on the first input that has an `e`."""
    pytest.importorskip("atheris", reason="atheris is not installed")
    script = tmp_path / "broken.py"
    script.write_text(
        "import fuzz.targets as t\n"
        "def check(data):\n    assert b'e' not in data\n"
        "t.TARGETS['card'] = t.TARGETS['card']._replace(check=check)\n"
    )
    (tmp_path / "sitecustomize.py").write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\nimport broken\n")
    found = subprocess.run(
        [sys.executable, "-m", "fuzz", "card", "--minutes", "0.2", "--out", str(tmp_path / "out")],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 1, found.stdout + found.stderr
    assert "1 found" in found.stdout
    assert "fuzz card --replay" in found.stdout
