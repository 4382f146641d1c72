"""What the commands print is printed as it is: rich would take `[a]` in a name for a style, and leave it out."""

from ipaddress import ip_address
from pathlib import Path

import pytest

from service.commands.predict import show_result
from service.commands.serve import _announce
from service.keys import Guard
from service.results import Classification, ImageSize, Result
from service.settings import Settings


@pytest.mark.parametrize("label", ["[a]", "[/a]", "an [odd] name", ":cat:"])
def test_labels_are_printed_as_they_are(capsys, label):
    show_result(Path("a.jpg"), Result("m", "1", "classify", ImageSize(2, 2), [Classification(0, label, 0.5)]))
    assert label in capsys.readouterr().out


@pytest.mark.parametrize(("address", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]"), ("fd00::1", "[fd00::1]")])
def test_the_address_and_the_folder_are_printed_as_they_are(capsys, tmp_path, address, shown):
    _announce(ip_address(address), 3000, Settings(models=str(tmp_path / "[x]")), Guard("", ""))
    said = capsys.readouterr().err
    assert f"on http://{shown}:3000 " in said
    assert f"{tmp_path}/[x] on" in said
