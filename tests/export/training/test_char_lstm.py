"""The script on a few lines; and what was committed, on the play that it was not trained on."""

import json
import re

import pytest
import torch
from click.testing import CliRunner

from export.build import build_tensors
from export.families.char_lstm import HIDDEN, CharLstm, encode
from export.training import char_lstm
from export.training.char_lstm import bits_per_character, main, read_plays
from export.training.ngrams import NGrams
from zoo import catalog
from zoo.files import sha256_of
from zoo.sources import fetch_all


@pytest.fixture(scope="module")
def checkpoint():
    return fetch_all(catalog.find("char_lstm").sources)["weights"]


@pytest.fixture(scope="module")
def network(checkpoint) -> CharLstm:
    return build_tensors(catalog.find("char_lstm"), {"weights": checkpoint}).module


def test_it_needs_fewer_bits_than_ngrams_as_its_report_says(network, checkpoint):
    plays, held_out = read_plays()
    assert held_out[:1000] not in plays
    report = json.loads(checkpoint.with_suffix(".json").read_text())
    found = bits_per_character(network, held_out)
    assert found == pytest.approx(report["bits_per_character"], abs=0.002)  # machines round differently
    assert found < report["ngram_bits_per_character"] - 0.2
    assert report["sha256"] == sha256_of(checkpoint)
    assert checkpoint.stat().st_size < 1_000_000


def test_the_baseline_is_as_the_report_says(checkpoint):
    plays, held_out = read_plays()
    report = json.loads(checkpoint.with_suffix(".json").read_text())
    assert NGrams(plays).bits(held_out) == pytest.approx(report["ngram_bits_per_character"], abs=1e-9)


def test_a_text_may_be_read_in_parts(network):
    codes = torch.from_numpy(encode("If music be the food of love, play on.").copy())[None]
    whole = network(codes, torch.zeros(1, 2, HIDDEN))
    state = torch.zeros(1, 2, HIDDEN)
    for part in (codes[:, :1], codes[:, 1:20], codes[:, 20:]):
        answer = network(part, state)
        state = answer["next_state"]
    torch.testing.assert_close(answer, whole)
    assert answer["probabilities"].sum().item() == pytest.approx(1, abs=1e-5)


def test_codes_beyond_ascii_are_read_as_spaces(network):
    state = torch.zeros(2, 2, HIDDEN)
    answers = network(torch.tensor([[ord("a"), 200], [ord("a"), ord(" ")]], dtype=torch.uint8), state)
    torch.testing.assert_close(answers["probabilities"][0], answers["probabilities"][1])
    assert encode("é").tolist() == [ord("?")]


@pytest.mark.parametrize(("text", "wanted"), [("The q", "u"), ("HAMLET.\nTo th", "e")])
def test_it_guesses(network, text, wanted):
    answer = network(torch.from_numpy(encode(text).copy())[None], torch.zeros(1, 2, HIDDEN))
    assert chr(answer["probabilities"].argmax()) == wanted


@pytest.fixture
def few_lines(monkeypatch):
    plays, held_out = read_plays()
    monkeypatch.setattr(char_lstm, "read_plays", lambda: (plays[:40_000], held_out[:2000]))


def test_seeds_decide_and_it_learns(few_lines, tmp_path):
    states, reports = [], []
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        path = tmp_path / "new" / f"{name}.pt"
        result = CliRunner().invoke(main, ["--out", str(path), "--epochs", "3", "--seed", str(seed)])
        assert result.exit_code == 0, result.output
        assert "epoch 3/3" in result.output
        assert "PROSPERO." in result.output
        states.append(torch.load(path, weights_only=True))
        reports.append(json.loads(path.with_suffix(".json").read_text()))
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["output.weight"], states[2]["output.weight"])
    first, *_, last = re.findall(r"epoch ./3: ([\d.]+) bits", result.output)
    assert float(last) < float(first) - 1
    assert reports[0]["ngram_bits_per_character"] < 7
