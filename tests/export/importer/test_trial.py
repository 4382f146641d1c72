"""The normalisation that a network was trained with is found on sample photos."""

import dataclasses

import numpy as np
import pytest

from export.families import onnx as family
from export.importer.draft import draft_onnx
from export.importer.pixels import CANDIDATES
from export.importer.trial import choose, try_normalisations, undecided


@pytest.fixture(scope="module")
def network(my_onnx, tmp_path_factory):
    from export.importer.options import ImportOptions

    card = draft_onnx(my_onnx, ImportOptions("net", licence="MIT"), tmp_path_factory.mktemp("scratch")).card
    return card, family.build(card, {"weights": my_onnx})


def test_imagenets_is_found_for_mobilenet(network):
    card, built = network
    judged = try_normalisations(card, built, 1000, CANDIDATES, [])
    assert choose(judged, CANDIDATES)[0] == "ImageNet's mean and deviation"
    assert judged["0..255"] < 0.9 * judged["ImageNet's mean and deviation"] < np.log(4)


def test_another_range_is_found_where_the_network_wants_it(network):
    """The same network behind a division by 255 wants 0..255."""
    card, built = network
    reference = built.reference
    mean, std = (np.array(x, np.float32).reshape(3, 1, 1) for x in (card.normalise.mean, card.normalise.std))
    wrapped = dataclasses.replace(built, reference=lambda x: reference(((x - mean) / std).astype(np.float32)))
    judged = try_normalisations(card, wrapped, 1000, CANDIDATES, [])
    assert choose(judged, CANDIDATES)[0] == "0..255"


@pytest.mark.parametrize(
    ("judged", "chosen", "others"),
    [
        ({"a": 1.0, "b": 0.99, "c": 0.5}, "a", ["b"]),
        ({"b": 1.0, "a": 0.99}, "a", ["b"]),
        ({"b": 1.0, "a": 0.9}, "b", []),
    ],
)
def test_the_usual_is_taken_where_several_are_as_good(judged, chosen, others):
    assert choose(judged, [name for name in ("a", "b", "c") if name in judged]) == (chosen, others)


@pytest.mark.parametrize(
    ("judged", "nothing"), [({"a": 0.0, "b": 0.0}, True), ({"a": 0.049}, True), ({"a": 0.0, "b": 0.06}, False)]
)
def test_nothing_is_decided_where_nothing_is_seen(judged, nothing):
    assert undecided(judged) is nothing
