"""Probabilities by counting."""

import pytest

from export.training.ngrams import NGrams


@pytest.mark.parametrize("context", ["", "a", "ab", "zzzz", "xab"])
def test_the_probabilities_of_all_characters_sum_to_one(context):
    counted = NGrams("abracadabra", order=3, characters=26)
    total = sum(counted.probability(context, chr(code)) for code in range(ord("a"), ord("z") + 1))
    assert total == pytest.approx(1)


def test_witten_and_bell_by_hand():
    counted = NGrams("aab", order=2, characters=4)
    one = (2 + 2 / 4) / (3 + 2)  # a: twice of three, two kinds, a quarter before
    assert counted.probability("", "a") == pytest.approx(one)
    assert counted.probability("a", "a") == pytest.approx((1 + 2 * one) / (2 + 2))
    assert counted.probability("b", "a") == pytest.approx(one)  # nothing ever followed b
    assert counted.probability("xxa", "a") == counted.probability("a", "a")


def test_what_was_counted_needs_fewer_bits():
    counted = NGrams("to be or not to be " * 20)
    assert counted.bits("to be or not to be ") < 1.5 < counted.bits("sphinx of quartz ")
