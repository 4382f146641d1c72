"""Top-k, its interval, and what was confused, against values computed by hand."""

import pytest

from evaluation.classify import TopK, wilson
from evaluation.dataset import ClassScore, Confusion, Example
from service.results import Classification, ImageSize, Result

LABELS = [f"class {i}" for i in range(7)]


def answered(*class_ids: int) -> Result:
    found = [Classification(i, LABELS[i], 0.1) for i in class_ids]
    return Result("m", "1", "classify", ImageSize(1, 1), found)


def test_top_k_per_class_and_confusions():
    judge = TopK(LABELS)
    for truth, answers in [(0, (0, 1, 2, 3, 4)), (0, (1, 2, 3, 4, 0)), (0, (1, 2, 3, 4, 5)), (6, (6, 5, 4, 3, 2))]:
        judge.add(judge.compare(Example("x", bytes, truth), answered(*answers)))
    scores = judge.scores()
    assert [(one.name, one.value) for one in scores.measures] == [("top-1", 0.5), ("top-5", 0.75)]
    assert scores.per_class == [ClassScore("class 0", 1 / 3, 3), ClassScore("class 6", 1.0, 1)]
    assert Confusion("class 0", "class 1", 2) in scores.confusions
    assert sum(one.count for one in scores.confusions) == 4


def test_top_5_is_left_out_for_five_classes():
    judge = TopK(LABELS[:5])
    judge.add(judge.compare(Example("x", bytes, 0), answered(0, 1, 2, 3, 4)))
    assert [one.name for one in judge.scores().measures] == ["top-1"]


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0),
    ],
)
def test_wilson_interval(right, total, low, high):
    """The examples of Newcombe, Two-sided confidence intervals for the single proportion, 1998."""
    assert wilson(right, total) == pytest.approx((low, high), abs=6e-5)
