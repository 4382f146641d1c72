"""Which models were unloaded: one set for several processes, that outlives the folder in which it is kept."""

import shutil

import pytest

from service.engine.unloaded import Unloaded


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "state" / "shared"
    folder.mkdir(parents=True)
    return folder


def test_without_a_folder_it_is_a_set():
    unloaded = Unloaded(None)
    assert "m" not in unloaded
    unloaded.add("m")
    assert "m" in unloaded
    unloaded.discard("m")
    assert "m" not in unloaded


def test_processes_see_what_others_did(folder):
    one, other = Unloaded(folder), Unloaded(folder)
    one.add("m")
    assert "m" in other
    assert "n" not in other
    other.discard("m")
    assert "m" not in one
    assert "m" not in Unloaded(folder), "nor does one that comes later"


@pytest.mark.parametrize("removed", ["the files", "the folder", "the folder above"])
def test_what_is_cleaned_away_is_known_still(folder, removed):
    one, other = Unloaded(folder), Unloaded(folder)
    one.add("m")
    one.add("n")
    one.discard("n")
    assert "m" in other
    assert "n" not in other
    if removed == "the files":
        for file in folder.iterdir():
            file.unlink()
    else:
        shutil.rmtree(folder if removed == "the folder" else folder.parent)
    for unloaded in (other, one, Unloaded(folder)):  # the last one learns it from what the others noted again
        assert "m" in unloaded
        assert "n" not in unloaded
    other.discard("m")
    assert "m" not in one


def test_it_can_be_changed_while_the_folder_is_away(folder):
    one, other = Unloaded(folder), Unloaded(folder)
    shutil.rmtree(folder.parent)
    one.add("m")
    assert "m" in other
