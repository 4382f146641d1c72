"""A card that is written and read again is the same."""

import msgspec
import pytest

from export.importer.toml import to_toml
from zoo import catalog
from zoo.card import Keypoints
from zoo.keypoints import COCO17
from zoo.model_card import ModelCard


@pytest.mark.parametrize("name", catalog.names())
def test_every_card_is_read_back_unchanged(name):
    card = msgspec.structs.replace(catalog.find(name), title='A "title" with ünïcode \\ and\ttab')
    text = to_toml(card, ["one", "two"])
    assert text.startswith("# one\n# two\nname = ")
    assert msgspec.toml.decode(text, type=type(card)) == card


@pytest.mark.parametrize(
    "keypoints", ["coco17", COCO17, Keypoints(("a b", "ü")), Keypoints(("a", "b"), ((0, 1),), (0.1, 0.2))]
)
def test_keypoints_are_read_back_unchanged(keypoints):
    card = msgspec.structs.replace(catalog.find("yolov4_tiny"), task="pose", keypoints=keypoints)
    assert msgspec.toml.decode(to_toml(card, []), type=ModelCard) == card
