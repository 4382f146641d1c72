"""The walk-throughs of docs/models.md, done as a newcomer does them: its card, its commands, its answers."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torchvision.models import mobilenet_v2

from zoo import catalog
from zoo.sources import fetch_all

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/models.md").read_text()
FOUND = re.findall(r"```sh\n(.*?)```\n\n```text\n(.*?)```", PAGE, re.DOTALL)
MINE, CARD, FETCH = (
    [step for step in FOUND if word in step[0]] for word in ("my.onnx", "mobilenet_v2_256", "--to mirror")
)
NUMBER = re.compile(r"\d+\.\d+")


@pytest.fixture
def newcomer(tmp_path):
    """A folder with the page's card and the page's photo, and a shell in it."""
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs/coffee.jpg", tmp_path / "docs")
    card = re.search(r"`(cards/\w+\.toml)`.*?```toml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "cards").mkdir()
    (tmp_path / card[1]).write_text(card[2])
    environment = {key: value for key, value in os.environ.items() if key not in {"ZOOSERVE_CARDS", "ZOOSERVE_MODELS"}}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"

    def run(commands: str) -> list[str]:
        arguments = ["sh", "-ec", commands]
        done = subprocess.run(
            arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=280
        )
        assert done.returncode == 0, done.stderr
        return [line.rstrip() for line in done.stdout.splitlines()]

    run.folder = tmp_path
    return run


def same(printed: list[str], shown: list[str]) -> None:
    """Equal line by line; numbers may differ as much as they do between processors."""
    assert [NUMBER.sub("#", line) for line in printed] == [NUMBER.sub("#", line) for line in shown]
    numbers = [[float(number) for line in lines for number in NUMBER.findall(line)] for lines in (printed, shown)]
    assert numbers[0] == pytest.approx(numbers[1], rel=0.01, abs=0.002)


def test_a_newcomer_adds_a_model_with_one_card_under_30_lines(newcomer):
    (card,) = (newcomer.folder / "cards").iterdir()
    assert len(card.read_text().splitlines()) < 30
    assert card.stem not in catalog.names(), "a model that the zoo does not have yet"
    commands, answer = CARD[0]
    shown = answer.splitlines()
    printed = newcomer(commands)
    same(printed[-len(shown) :], shown)
    assert printed[0].startswith(f"{card.stem} 1: models/{card.stem}/1, ")
    assert any(line.startswith(card.stem) and "version 1" in line for line in newcomer("zooserve list"))


def test_a_newcomer_adds_a_file_of_their_own(newcomer, monkeypatch):
    """The page's way to export it leaves its weights in a second file."""
    network = mobilenet_v2()
    network.load_state_dict(torch.load(fetch_all(catalog.find("mobilenet_v2").sources)["weights"], weights_only=True))
    monkeypatch.chdir(newcomer.folder)
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(snippet, {"network": network})
    assert (newcomer.folder / "my.onnx.data").stat().st_size > 1_000_000
    commands, answer = MINE[0]
    same(newcomer(commands), answer.splitlines())
    assert {path.name for path in newcomer.folder.iterdir()} >= {"my.png", "models"}
    assert any(line.startswith("my ") and "file" in line for line in newcomer("zooserve list"))


def test_a_newcomer_fills_a_mirror(newcomer):
    commands, answer = FETCH[0]
    assert newcomer(commands) == answer.splitlines()
    newcomer("cd mirror && sha256sum -c SHA256SUMS")


def test_all_walk_throughs_are_run():
    assert len(MINE) == len(CARD) == len(FETCH) == 1
