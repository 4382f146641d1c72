"""Work in several processes: it begins together, and whoever fails ends the others at once."""

import os
import sys
from functools import partial
from time import monotonic, sleep

import pytest

from loadtests.side_by_side import meet, side_by_side


def works(seconds):
    begin = monotonic()
    while monotonic() < begin + seconds:
        pass
    meet()
    return begin + seconds, monotonic()


def works_then_sleeps(seconds):
    meet()
    sleep(seconds)


def test_all_begin_when_the_last_is_ready():
    found = side_by_side([partial(works, 0.0), partial(works, 0.5)])
    assert min(begun for _, begun in found) >= max(ready for ready, _ in found)


def fails_at_once():
    meet()
    raise ValueError("broken")


def test_one_that_fails_later_ends_the_others_at_once():
    begin = monotonic()
    with pytest.raises(ValueError, match="broken"):
        side_by_side([partial(works_then_sleeps, 60.0), fails_at_once])
    assert monotonic() - begin < 50


@pytest.mark.parametrize(
    ("fails", "error", "words"),
    [
        (partial(int, "many"), ValueError, "many"),
        (partial(os._exit, 3), ConnectionError, "a process ended"),
        (partial(sys.exit, 3), ConnectionError, "a process ended"),
    ],
)
def test_one_that_fails_ends_the_others_at_once(fails, error, words):
    begin = monotonic()
    with pytest.raises(error, match=words):
        side_by_side([partial(works, 0.0), fails])
    assert monotonic() - begin < 60  # not the two minutes that they get to be ready
