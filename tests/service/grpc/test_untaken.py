"""Answers that clients do not take are counted, and bounded over all calls."""

import pytest

from service.errors import Reason, RequestError
from service.grpc.calls import Untaken
from service.limits import Bodies


def test_answers_count_until_they_are_taken_or_their_call_is_over():
    every = Bodies(10)
    one, other = Untaken(every), Untaken(every)
    one.add(6)
    other.add(4)
    with pytest.raises(RequestError, match="not taken answers of 10 bytes") as refused:
        other.add(1)
    assert (refused.value.reason, refused.value.retry_after) == (Reason.QUEUE_FULL, 1)
    one.taken(6)
    other.add(5)
    other.end()
    assert every.held == 0
    one.add(99)  # where there is no other
    one.end()
    assert every.held == 0
