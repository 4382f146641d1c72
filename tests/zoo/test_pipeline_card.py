"""Cards of pipelines: the zoo's are valid, a user's own are found, and what is wrong with one is said."""

import json

import pytest
from click.testing import CliRunner

from tests.conftest import ROOT
from zoo import catalog
from zoo.cli import main
from zoo.errors import CardError
from zoo.pipeline_card import find_pipeline, own_pipelines, read_pipeline, zoo_pipelines

EXPORTED = str(ROOT / "models")
MINE = """\
name = "mine"
title = "Persons, each cut out"

[detect]
model = "yolov4_tiny"
classes = ["person"]
options = { score_threshold = 0.5 }

[crops]
pad = 0.2
min_size = 8
max_crops = 5

[second]
task = "segment"
model = "u2netp"
options = { mask = "png" }
"""


def write(folder, text, name="mine"):
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def run(*arguments):
    return CliRunner().invoke(main, arguments)


def test_the_zoos_pipelines_are_of_models_of_the_zoo_that_are_exported_by_default():
    assert {"pets", "objects"} <= zoo_pipelines().keys()
    for card in zoo_pipelines().values():
        assert all(catalog.find(model).default for model in card.models)
        labels = catalog.find(card.detect.model).labels
        assert labels, "classes are checked against them when the pipeline is asked for"


def test_a_users_own_are_in_the_folder_of_the_models(tmp_path):
    write(tmp_path / "pipelines", MINE)
    card = find_pipeline("mine", tmp_path)
    assert card.models == ("yolov4_tiny", "u2netp")
    assert (card.crops.pad, card.crops.min_size, card.crops.max_crops) == (0.2, 8, 5)
    assert own_pipelines(tmp_path)["mine"] == card
    assert find_pipeline("pets", tmp_path) == zoo_pipelines()["pets"]
    assert find_pipeline("nothing", tmp_path) is None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('task = "segment"', 'task = "obb"', r"Invalid enum value 'obb' - at `\$.second.task`"),
        ("pad = 0.2", "pad = 2", r"<= 1.*crops.pad"),
        ("max_crops = 5", "max_crops = 0", r">= 1.*crops.max_crops"),
        ("max_crops = 5", "most_crops = 5", r"unknown field `most_crops`"),
        ("[detect]", "[detector]", r"missing required field `detect`|unknown field `detector`"),
        ('name = "mine"', 'name = "other"', "`name` is 'other', but the file is called 'mine'"),
        ('title = "Persons, each cut out"', "title = ", "mine.toml"),
    ],
)
def test_what_is_wrong_with_a_card_is_said(tmp_path, old, new, said):
    path = write(tmp_path / "pipelines", MINE.replace(old, new))
    with pytest.raises(CardError, match=said):
        read_pipeline(path)
    assert isinstance(own_pipelines(tmp_path)["mine"], CardError), "it does not hide others"


def test_show_explains_a_pipeline(tmp_path):
    shown = run("show", "pets", "--models", EXPORTED).output
    for words in ("cat, dog, with yolov4_tiny", "10% of it", "each crop, with mobilenet_v2 (top_k=3)", "both models"):
        assert words in shown
    write(tmp_path / "pipelines", MINE)
    assert "run `zooserve export yolov4_tiny u2netp`" in run("show", "mine", "--models", str(tmp_path)).output
    as_json = json.loads(run("show", "mine", "--json", "--models", str(tmp_path)).output)
    assert as_json["pipeline"]["second"]["task"] == "segment"
    assert as_json["missing"] == ["yolov4_tiny", "u2netp"]


def test_list_has_pipelines_and_what_they_need(tmp_path):
    rows = {row["name"]: row for row in json.loads(run("list", "--json", "--models", EXPORTED).output)}
    assert (rows["pets"]["task"], rows["pets"]["state"]) == ("pipeline", "of yolov4_tiny, mobilenet_v2")
    write(tmp_path / "pipelines", MINE.replace("segment", "obb"))
    rows = {row["name"]: row for row in json.loads(run("list", "--json", "--models", str(tmp_path)).output)}
    assert rows["pets"]["state"] == "needs yolov4_tiny, mobilenet_v2"
    assert rows["mine"]["state"] == "refused"
    assert "second.task" in rows["mine"]["problem"]
