"""A server and a bare loop that took turns: ratios of each round, and what is too noisy to judge."""

import pytest

from loadtests.goals import Turns


@pytest.mark.parametrize(
    ("bare", "served", "ratio", "spread", "said"),
    [
        ([1.0, 1.0], [1.05], [1.05], 0.0, "1.05 - met"),
        ([1.0, 1.0, 1.0], [1.2, 1.4], [1.2, 1.4], 0.0, "1.30 - missed"),
        ([1.0, 1.08, 1.0], [1.04, 1.04], [1.0, 1.0], 0.08, "1.00 - met"),
        ([1.0, 1.0, 3.0], [1.0, 1.0], [1.0, 0.5], 2.0, "0.75 - too noisy to judge"),
        ([1.0, 1.0, 3.0], [3.0, 3.0], [3.0, 1.5], 2.0, "2.25 - too noisy to judge"),
    ],
)
def test_turns(bare, served, ratio, spread, said):
    found = Turns.of(bare, served)
    assert found.ratio == pytest.approx(ratio)
    assert found.spread == pytest.approx(spread)
    assert str(found.goal("a promise", 1.1)) == f"goal a promise: {said}"
