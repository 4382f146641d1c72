"""A card that is written and read again is the same."""

import msgspec
import pytest

from export.importer.toml import to_toml
from zoo import catalog
from zoo.model_card import ModelCard


@pytest.mark.parametrize("name", catalog.names())
def test_every_card_is_read_back_unchanged(name):
    card = msgspec.structs.replace(catalog.find(name), title='A "title" with ünïcode \\ and\ttab')
    text = to_toml(card, ["one", "two"])
    assert text.startswith("# one\n# two\nname = ")
    assert msgspec.toml.decode(text, type=ModelCard) == card
