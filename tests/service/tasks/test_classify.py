"""classify: the most probable classes first, equal ones by class id."""

import msgspec
import numpy as np
import pytest

from service.tasks.classify import Options, answer


class Card(msgspec.Struct):
    labels: tuple[str, ...] = ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("probabilities", "top_k", "labels"),
    [
        ([0.1, 0.6, 0.2, 0.1], 2, ["b", "c"]),
        ([0.25, 0.25, 0.25, 0.25], 4, ["a", "b", "c", "d"]),
        ([0.1, 0.2, 0.3, 0.4], 1000, ["d", "c", "b", "a"]),
        ([0.5, 0.5, 0.0, 0.0], 1, ["a"]),
        ([0.0, 0.5, 0.5, 0.5], 2, ["b", "c"]),
        ([0.25, 0.25, 0.25, 0.25], 1, ["a"]),
        ([0.1, 0.2, 0.3, 0.4], 3, ["d", "c", "b"]),
        ([0.4, 0.1, 0.1, 0.4], 3, ["a", "d", "b"]),
    ],
)
def test_top_k(probabilities, top_k, labels):
    outputs = {"probabilities": np.array([[0, 0, 0, 1], probabilities], np.float32)}
    found = answer(outputs, 1, Card(), None, Options(top_k=top_k))
    assert [prediction.label for prediction in found] == labels
    assert [prediction.score for prediction in found] == sorted(probabilities, reverse=True)[:top_k]


def test_top_k_is_a_stable_sort():
    """Of many and few classes, with and without equal ones, few and many asked for."""
    random = np.random.default_rng(1)
    for size, kinds in ((1000, 10**6), (1000, 20), (40, 3), (7, 2), (1, 1)):
        card = Card(tuple(map(str, range(size))))
        probabilities = (random.integers(0, kinds, (1, size)) / kinds).astype(np.float32)
        order = np.argsort(-probabilities[0], kind="stable")
        for top_k in (1, 2, 5, 31, 32, 33, 1000):
            found = answer({"probabilities": probabilities}, 0, card, None, Options(top_k=top_k))
            assert [one.class_id for one in found] == order[:top_k].tolist()


def test_what_is_no_number_comes_last():
    outputs = {"probabilities": np.array([[np.nan, 0.1, np.nan, 0.6]], np.float32)}
    for top_k in (1, 2, 3, 4):
        found = answer(outputs, 0, Card(), None, Options(top_k=top_k))
        assert [one.label for one in found] == ["d", "b", "a", "c"][:top_k]
