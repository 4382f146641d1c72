"""The fuzzer's seeds and its judgement; the fuzzing itself is not for a test."""

import sys

import pytest
from click.testing import CliRunner

from loadtests import fuzz_decode

SEEDS = dict(fuzz_decode.seeds())


@pytest.mark.parametrize("name", SEEDS)
def test_every_seed_is_decoded(name):
    fuzz_decode.check(SEEDS[name])
    assert fuzz_decode.decode(SEEDS[name]).shape in {(32, 48, 3), (48, 32, 3)}


def test_what_takes_too_long_is_found(monkeypatch):
    monkeypatch.setattr(fuzz_decode, "SECONDS", 0.0)
    with pytest.raises(AssertionError, match="bytes took"):
        fuzz_decode.check(SEEDS["astronaut-png"])


def test_what_is_no_refusal_is_found(monkeypatch):
    monkeypatch.setattr(fuzz_decode, "Picture", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fuzz_decode.check(b"x")


def test_a_file_is_shown_again(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"no picture")
    assert "as promised" in CliRunner().invoke(fuzz_decode.main, ["--replay", str(path)]).output


def test_without_atheris_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "atheris", None)
    refused = CliRunner().invoke(fuzz_decode.main, [])
    assert refused.exit_code == 1
    assert "pip install atheris" in refused.output
