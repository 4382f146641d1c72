"""docs/security.md stays true: the settings that it names have the defaults that it says."""

import re

import pytest

from service.settings import Settings
from tests.conftest import ROOT

TEXT = (ROOT / "docs/security.md").read_text()
ROWS = re.findall(r"^\| [^|]+ \| ([^|]+) \| `ZOOSERVE_(\w+)`", TEXT, re.MULTILINE)
UNITS = {"timeout_ms": 1000.0}  # of the setting in the text's


@pytest.mark.parametrize(("bound", "name"), ROWS, ids=[name for _, name in ROWS])
def test_a_bound_is_the_default_of_its_setting(bound, name):
    said = float(re.match(r"[\d,.]*\d", bound)[0].replace(",", ""))
    default = getattr(Settings(), name.lower()) / UNITS.get(name.lower(), 1.0)
    assert said == default


def test_most_bounds_have_a_setting():
    assert len(ROWS) >= 10


@pytest.mark.parametrize("path", re.findall(r"`((?:tests|loadtests|service)/[\w/]+(?:\.py)?)/?`", TEXT))
def test_what_it_points_at_is_there(path):
    assert (ROOT / path).exists()
