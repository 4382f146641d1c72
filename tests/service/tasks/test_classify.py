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
    ],
)
def test_top_k(probabilities, top_k, labels):
    outputs = {"probabilities": np.array([[0, 0, 0, 1], probabilities], np.float32)}
    found = answer(outputs, 1, Card(), None, Options(top_k=top_k))
    assert [prediction.label for prediction in found] == labels
    assert [prediction.score for prediction in found] == sorted(probabilities, reverse=True)[:top_k]
