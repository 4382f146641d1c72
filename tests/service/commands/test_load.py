"""Models that commands load: in the version that they were asked about, or not at all."""

import shutil

import click
import msgspec
import pytest

from service.commands.load import load_model, load_pipeline
from zoo.served_card import read_served_card, write_served_card


@pytest.fixture
def store(models, tmp_path):
    """A store whose newest version of a classifier has another golden answer than its graph."""
    for name in ("mobilenet_v2", "yolov4_tiny"):
        shutil.copytree(models / name, tmp_path / "models" / name)
    folder = shutil.copytree(models / "mobilenet_v2" / "1", tmp_path / "models" / "mobilenet_v2" / "2")
    card = read_served_card(folder / "card.json")
    wrong = msgspec.structs.replace(card.golden[0].predictions[0], class_id=5, label=card.labels[5])
    golden = (msgspec.structs.replace(card.golden[0], predictions=(wrong,)), *card.golden[1:])
    write_served_card(msgspec.structs.replace(card, version="2", golden=golden), folder / "card.json")
    return tmp_path / "models"


def test_an_older_version_does_not_answer_for_the_newest(store):
    with pytest.raises(click.ClickException, match="mobilenet_v2: version 2 in the store is refused: on"):
        load_model("mobilenet_v2", str(store))
    with pytest.raises(click.ClickException, match="mobilenet_v2: version 2 in the store is refused"):
        load_pipeline("pets", str(store))
    shutil.rmtree(store / "mobilenet_v2" / "2")
    assert load_model("mobilenet_v2", str(store)).model.card.version == "1"
