"""The rate of a scored run: of its steady part, whatever was half done at its ends."""

import pytest

from loadtests.scoring.score import Mark, _steady


def marks(*pairs):
    return [Mark(at, done, busy=2.0 * at) for at, done in pairs]


@pytest.mark.parametrize(
    ("seen", "rate"),
    [
        ([], 0.0),
        (marks((0, 0), (1, 50)), 0.0),
        (marks((0, 0), (5, 20), (6, 30), (7, 50), (8, 70), (9, 90), (9.1, 100)), 20.0),
        (marks((0, 0), (5, 40), (6, 60), (6, 100)), 20.0),
    ],
)
def test_neither_loading_nor_the_last_parts_count(seen, rate):
    found, processor_ms = _steady(seen)
    assert found == pytest.approx(rate)
    assert processor_ms == pytest.approx(2000 / rate if rate else 0.0)
