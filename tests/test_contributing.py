"""CONTRIBUTING.md's family, added as it says: one file, and a card."""

import hashlib
import json
import re
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from export import families
from zoo.cli import main
from zoo.store import Store

PAGE = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text()
CARD = """
name = "hues"
version = "1"
task = "classify"
family = "colours"
title = "Hues"
labels = "hues.txt"
licence = { code = "MIT", weights = "LicenseRef-own" }
options = { features = 8 }

[recipe]
resize = "stretch"
height = 32
width = 32

[sources.weights]
file = "hues.pth"
"""


@pytest.fixture
def added(tmp_path, monkeypatch):
    """The page's file in a folder that counts as `export/families/`, and a card with random weights."""
    name, code = re.search(r"`export/families/(\w+)\.py`:\n\n```python\n(.*?)```", PAGE, re.DOTALL).groups()
    (tmp_path / "families").mkdir()
    (tmp_path / "families" / f"{name}.py").write_text(code)
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(tmp_path / "families")])
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)]
    torch.save(nn.Sequential(*layers).state_dict(), tmp_path / "hues.pth")
    (tmp_path / "hues.txt").write_text("red\ngreen\nblue\n")
    digest = hashlib.sha256((tmp_path / "hues.pth").read_bytes()).hexdigest()
    (tmp_path / "hues.toml").write_text(f'{CARD}sha256 = "{digest}"\n')
    yield tmp_path
    sys.modules.pop(f"export.families.{name}", None)


def test_a_family_is_one_file(added):
    done = CliRunner().invoke(main, ["export", str(added / "hues.toml"), "--models", str(added / "models"), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)[0]["state"] == "exported"
    served = Store(added / "models").verify("hues", "1")
    assert (served.family, served.labels) == ("colours", ("red", "green", "blue"))
    assert {"probabilities", "activation"} <= {output.name for output in served.outputs}


def test_its_options_are_checked(added):
    card = added / "hues.toml"
    card.write_text(card.read_text().replace("features = 8", "feature = 8"))
    done = CliRunner().invoke(main, ["export", str(card), "--models", str(added / "models")])
    assert done.exit_code == 1
    assert "there is no option 'feature': the family `colours` has the options features; is `features`" in done.stderr
