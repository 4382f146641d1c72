"""Images that are too large are refused."""

import pytest

from service.errors import Reason, RequestError
from service.vision.size import check_size


@pytest.mark.parametrize(("width", "height"), [(100, 10), (1, 1000), (1000, 1)])
def test_the_limit_itself_is_allowed(width, height):
    check_size(width, height, 1000)


@pytest.mark.parametrize(
    ("width", "height", "message"),
    [
        (1001, 1, "1001 x 1 = 0.0 million pixels"),
        (50_000, 50_000, "2500.0 million pixels"),
        ((1 << 20) + 1, 1, "sides of at most 1048576"),
        (1, (1 << 20) + 1, "sides of at most 1048576"),
    ],
)
def test_too_many_pixels_or_too_long_a_side_is_refused(width, height, message):
    with pytest.raises(RequestError, match=message) as caught:
        check_size(width, height, 1000 if "million" in message else 1 << 30)
    assert caught.value.reason is Reason.TOO_LARGE
